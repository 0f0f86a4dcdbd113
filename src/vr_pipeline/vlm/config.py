"""Which vision-language model, and how it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters, TrainedHere
from vr_pipeline.runtime.endpoint import EndpointParameters
from vr_pipeline.storage.hub import is_local
from vr_pipeline.vlm.families import REMOTE_CODE_FAMILIES, SERVED

_OF_THE_REQUEST = frozenset(
    {
        *("model", "messages", "max_tokens", "max_completion_tokens", "temperature", "logprobs", "top_logprobs"),
        *("n", "stream", "logit_bias"),
    }
)


class ServerParameters(EndpointParameters):
    """A server that speaks OpenAI's chat protocol, and how it is shown clips and questions."""

    media: Literal["frames", "video"] = Field(
        "frames",
        description="How a clip is sent: 'frames' as one image each (image_url), 'video' as one mp4 (video_url, which "
        "vLLM and SGLang take). A clip of one frame is always an image.",
    )
    image_format: Literal["png", "jpeg"] = Field("png", description="Images: 'png' without loss, or 'jpeg'.")
    jpeg_quality: int = Field(95, ge=1, le=100, description="Quality of JPEG images.")
    image_detail: Literal["low", "high", "auto"] | None = Field(
        None, description="Resolution at which the server looks at images, where it has such a choice; null sends none."
    )
    video_codec: Literal["libx264rgb", "libx264"] = Field(
        "libx264rgb", description="Videos: 'libx264rgb' without loss, or 'libx264' (4:2:0, decoded everywhere)."
    )
    system: str = Field("", description="System message; empty sends none.")
    before_question: str = Field("", description="Text between the clip and the question.")
    after_question: str = Field(" Answer yes or no.", description="Text after the question.")
    top_logprobs: int = Field(
        20, ge=2, le=1000, description="Most likely tokens that the server returns with their log-probabilities."
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="Name of the server's limit on the answer, which is one token."
    )
    extra_body: dict[str, Any] = Field(
        {}, description="Further fields of a request, such as chat_template_kwargs: {enable_thinking: false}."
    )
    answers_as: str | None = Field(
        None, description="Name of the model in the server's answers, if it is not 'path'; other models are rejected."
    )
    price_per_million_input_tokens: float | None = Field(
        None, ge=0, description="Price of a million tokens sent, for kedro plan and the log."
    )
    price_per_million_output_tokens: float = Field(0.0, ge=0, description="Price of a million tokens of answers.")
    currency: str = Field("USD", description="Currency of the prices.")
    tokens_per_frame: float | None = Field(
        None, gt=0, description="Tokens of a frame, for kedro plan; null calculates them where the model is known."
    )

    @model_validator(mode="after")
    def _own_fields_stay(self) -> ServerParameters:
        if taken := sorted(_OF_THE_REQUEST & self.extra_body.keys()):
            raise ValueError(f"'extra_body' cannot set {', '.join(taken)}: answers are read from what these ask for")
        return self


NO_PART_OF_ANSWERS = frozenset(
    {
        *EndpointParameters.model_fields,
        *("price_per_million_input_tokens", "price_per_million_output_tokens", "currency", "tokens_per_frame"),
    }
)
"""Settings of a server that change no answers: the same model may move to another address."""


class JudgeParameters(Parameters):
    """Which vision-language model answers, and what it is shown."""

    family: str = Field(
        description="Judge family: a key of vr_pipeline.vlm.families.FAMILIES, or 'openai_compatible' for a server."
    )
    path: str = Field(
        description="Folder of the model, or its name on the hub (then 'revision' is required), or on the server."
    )
    revision: str | None = Field(
        None,
        pattern="^[0-9a-f]{40}$",
        description="Commit of the model on the hub, 40 hexadecimal digits; for folders only with trust_remote_code; "
        "for a server the commit that it has loaded, if you know it.",
    )
    trust_remote_code: bool = Field(
        False,
        description="Consent to run the Python code that comes with the model, on this machine and with your rights; "
        "needed by families cogvlm2_image and cogvlm2_video. Only with 'revision', the commit whose code you have "
        "read.",
    )
    adapter: str | None = Field(None, description="Folder of a PEFT adapter that is merged into the model.")
    device: str = Field("auto", description="Torch device, or 'auto' for CUDA where there is one.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of the model.")
    quantisation: Literal["none", "8bit", "4bit"] = Field(
        "none", description="Weights in 8 or 4 bits by bitsandbytes, from the extra 'gpu'."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; null leaves the default.")
    num_frames: int | None = Field(
        None, ge=1, description="Frames of a clip, at most, evenly spread; null: as in the model folder."
    )
    frames_per_second: float | None = Field(None, gt=0, description="Rate at which frames are taken, in 1/s.")
    min_pixels: int | None = Field(None, ge=1, description="Smallest area of a resized frame, in pixels.")
    max_pixels: int | None = Field(None, ge=1, description="Largest area of a resized frame, in pixels.")
    before_clip: str | None = Field(
        None,
        description="Text before the clip, instead of that of the model folder or the family. [[prompt]] in it stands "
        "for the clip's prompt; clips of one prompt then share what stands up to there.",
    )
    prefix: Literal["auto", "packed", "cached"] = Field(
        "auto",
        description="How questions share the clip: 'packed' puts the clip and all questions into one pass, 'cached' "
        "keeps the clip's keys and values and asks chunk by chunk; 'auto' packs when all questions fit one chunk. "
        "Family qwen3_5 always keeps the clip's state.",
    )
    question_chunk_size: int = Field(
        64, ge=1, description="Questions asked at a time; bounds memory. Halved when memory runs out."
    )
    clip_batch: int = Field(1, ge=1, description="Clips read by the model at a time; bounds memory.")
    server: ServerParameters | None = Field(
        None, description="The server of family openai_compatible; null for a model that is loaded here."
    )

    @property
    def served(self) -> bool:
        """Whether the model is behind a server."""
        return self.server is not None

    @model_validator(mode="after")
    def _served_models_are_elsewhere(self) -> JudgeParameters:
        if (self.family == SERVED) != self.served:
            raise ValueError(f"family '{SERVED}' and the block 'server' belong together: give both or none")
        here = [name for name in ("adapter", "trust_remote_code") if getattr(self, name)]
        here += ["before_clip"] if self.before_clip is not None else []
        here += ["quantisation"] if self.quantisation != "none" else []
        if self.served and here:
            raise ValueError(f"{', '.join(here)} cannot be set for a model behind a server: set it where that starts")
        return self

    @model_validator(mode="after")
    def _hub_models_are_pinned(self) -> JudgeParameters:
        if self.served:
            return self
        if self.revision is None and not Path(self.path).exists() and not is_local(self.path):
            raise ValueError(
                f"'{self.path}' is no folder here; for a model on the hub set 'revision' to one of its commits, "
                "so that stored answers keep their meaning"
            )
        return self

    @model_validator(mode="after")
    def _remote_code_is_pinned_and_wanted(self) -> JudgeParameters:
        if self.trust_remote_code and self.revision is None:
            raise ValueError(
                "'trust_remote_code' runs code that comes with the model: set 'revision' to the commit of that code"
            )
        if self.family in REMOTE_CODE_FAMILIES and not self.trust_remote_code:
            raise ValueError(
                f"family '{self.family}' needs the Python code that comes with the model: read it, then set "
                "'trust_remote_code: true' and 'revision' to its commit"
            )
        if self.trust_remote_code and self.family not in REMOTE_CODE_FAMILIES:
            raise ValueError(f"family '{self.family}' runs no code of the model's: remove 'trust_remote_code'")
        return self


class ChecklistJudgeParameters(JudgeParameters, TrainedHere):
    """The judge of the checklist: the model of 'path', or the one that judge_training has trained.

    The other settings apply to both. The weights of a trained judge include its adapter.
    """

    of_the_given: ClassVar[frozenset[str]] = frozenset({"adapter"})

    @model_validator(mode="after")
    def _a_trained_judge_is_here(self) -> ChecklistJudgeParameters:
        if self.served and self.origin == "trained":
            raise ValueError(f"'from: trained' is a model in a folder here: it cannot be of family '{SERVED}'")
        return self

    @model_validator(mode="before")
    @classmethod
    def _a_folder_has_no_revision(cls, values: Any) -> Any:
        # The code that a folder brings does have one.
        if isinstance(values, Mapping) and values.get("from") == "trained" and not values.get("trust_remote_code"):
            return {name: value for name, value in values.items() if name != "revision"}
        return values
