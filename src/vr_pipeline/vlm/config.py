"""Which vision-language model, and how it is fed."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.storage.hub import is_local
from vr_pipeline.vlm.families import REMOTE_CODE_FAMILIES


class JudgeParameters(Parameters):
    """Which vision-language model answers, and how it is fed."""

    family: str = Field(description="Judge family: a key of vr_pipeline.vlm.families.FAMILIES.")
    path: str = Field(description="Folder of the model, or its name on the hub (then 'revision' is required).")
    revision: str | None = Field(
        None,
        pattern="^[0-9a-f]{40}$",
        description="Commit of the model on the hub, 40 hexadecimal digits; for folders only with trust_remote_code.",
    )
    trust_remote_code: bool = Field(
        False,
        description=(
            "Consent to run the Python code that comes with the model, on this machine and with your rights; needed by "
            "family cogvlm2_video. Only with 'revision', the commit whose code you have read."
        ),
    )
    adapter: str | None = Field(None, description="Folder of a PEFT adapter that is merged into the model.")
    device: str = Field("auto", description="Torch device, or 'auto' for CUDA where there is one.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of the model.")
    quantisation: Literal["none", "8bit", "4bit"] = Field(
        "none", description="Weights in 8 or 4 bits by bitsandbytes, from the extra 'gpu'."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; null leaves the default.")
    num_frames: int | None = Field(
        None, ge=1, description="At most so many frames of a clip, evenly spread; null leaves it to the model folder."
    )
    frames_per_second: float | None = Field(None, gt=0, description="Rate at which frames are taken, in 1/s.")
    min_pixels: int | None = Field(None, ge=1, description="Smallest area of a resized frame, in pixels.")
    max_pixels: int | None = Field(None, ge=1, description="Largest area of a resized frame, in pixels.")
    prefix: Literal["auto", "packed", "cached"] = Field(
        "auto",
        description=(
            "How questions share the clip: 'packed' puts the clip and all questions into one pass, 'cached' keeps the "
            "clip's keys and values and asks chunk by chunk; 'auto' packs when all questions fit one chunk."
        ),
    )
    question_chunk_size: int = Field(
        64, ge=1, description="Questions asked at a time; bounds memory. Halved when memory runs out."
    )
    clip_batch: int = Field(1, ge=1, description="Clips read by the model at a time; bounds memory.")

    @model_validator(mode="after")
    def _hub_models_are_pinned(self) -> JudgeParameters:
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
