"""What a VideoReward is, without its weights: dimensions, texts, head, calibration; and how it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER
from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.runtime.setting_names import setting_trouble

ARTIFACT_FILE, MODEL_FOLDER, HEAD_FILE = "reward.json", "model", "head.safetensors"
TYPE = "videoreward"
TOTAL = "total"
"""Name of the overall score among those of the dimensions."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Width = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Range = tuple[Positive, Positive]
"""Lowest and highest value."""


class DimensionSettings(Parameters):
    """One dimension of the reward."""

    name: str = Field(pattern=r"^[A-Za-z0-9_]+$", description="Name: its score is the column dim_<name>.")
    rubric: str = Field("", description="Text before its token: what is judged.")
    token: str = Field("", description="Name of its special token; empty for <|NAME_reward|>.")
    sees_prompt: bool = Field(
        False, description="Whether its token stands behind the prompt; else its score depends on the clip alone."
    )
    criterion: str = Field("", description="Criterion of the labels that train it; empty for its name.")

    @property
    def labelled_by(self) -> str:
        """Criterion of the labels that train it."""
        return self.criterion or self.name


class NetworkSettings(Parameters):
    """What the network reads behind a clip, and how scores are read (Liu et al. 2025, section 4)."""

    dimensions: tuple[DimensionSettings, ...] = Field(min_length=1, description="Dimensions, in this order.")
    introduction: str = Field("", description="Text between the clip and the first rubric.")
    prompt_text: str = Field(
        f"\nTextual prompt - {PROMPT_PLACEHOLDER}\n",
        description=f"How the prompt is put, behind all dimensions that do not see it; {PROMPT_PLACEHOLDER} stands "
        "for it.",
    )
    end: str = Field("", description="Text at the end, for pooling 'last' and 'mean': tokens do not see it.")
    head: Literal["shared", "separate"] = Field(
        "shared", description="One vector for the tokens of all dimensions, or one a dimension."
    )
    pooling: Literal["special", "last", "mean"] = Field(
        "special",
        description="Where hidden states are read: at each dimension's token, at the last token of the whole text, or "
        "on average over all tokens. Only 'special' has tokens, and dimensions that are free of the prompt.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> NetworkSettings:
        for kind in ("name", "token"):
            values = [value for one in self.dimensions if (value := getattr(one, kind))]
            if len(values) != len(set(values)):
                raise ValueError(f"two dimensions have the same {kind}")
        if TOTAL in self.names:
            raise ValueError(f"no dimension can be called '{TOTAL}', which names the overall score")
        if self.prompt_text.count(PROMPT_PLACEHOLDER) != 1:
            raise ValueError(f"'prompt_text' must hold {PROMPT_PLACEHOLDER} once")
        if self.pooling != "special" and self.head == "shared" and len(self.dimensions) > 1:
            raise ValueError(
                f"with pooling '{self.pooling}' a shared head gives all dimensions the same score: set head to "
                "'separate'"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return tuple(one.name for one in self.dimensions)

    @property
    def free_of_prompt(self) -> tuple[str, ...]:
        """Names of the dimensions whose scores are the same for every prompt."""
        if self.pooling != "special":
            return ()
        return tuple(one.name for one in self.dimensions if not one.sees_prompt)

    def token_of(self, dimension: DimensionSettings) -> str:
        """Name of a dimension's special token."""
        return dimension.token or f"<|{dimension.name}_reward|>"


class SeenClips(Parameters):
    """What clips the network was trained on; lowest and highest each."""

    frames_per_second: Range = Field(description="Rate of the frames that were shown, in 1/s.")
    pixels: Range = Field(description="Area of a frame as it is in the file, in pixels.")
    seconds: Range = Field(description="Length of a clip, in s.")
    clips: int = Field(ge=1, description="Number of clips.")


class Calibration(Parameters):
    """What makes scores and probabilities of what the head gives; chosen on held-out clips and pairs.

    The score of a dimension is (raw - mean) / deviation. Differences of scores become probabilities by Bradley-Terry
    with ties (Rao and Kupper 1967): P(win) = s(scale d - ln theta).
    """

    mean: dict[str, Finite] = Field(description="Mean of the head's output, a dimension each.")
    deviation: dict[str, Positive] = Field(description="Its standard deviation, a dimension each.")
    clips: int = Field(0, ge=0, description="Held-out clips that mean and deviation are from; 0 where not known.")
    tie_threshold: dict[str, Length] = Field(
        default={},
        description="Differences of scores up to this size are called ties; a dimension each, and 'total'.",
    )
    scale: dict[str, Positive] = Field(
        default={}, description="Factor of a difference of scores before it becomes a probability; likewise."
    )
    theta: dict[str, Width] = Field(default={}, description="Width of ties, 1 or more; likewise.")
    pairs: dict[str, int] = Field(default={}, description="Held-out pairs that these three are from; likewise.")
    seen: SeenClips | None = Field(None, description="What clips the network was trained on; null where not known.")


class VideoRewardArtifact(Parameters):
    """The file reward.json of a VideoReward's folder."""

    type: Literal["videoreward"] = Field("videoreward", description="The kind of reward.")
    family: str = Field(description="Family of the vision-language model.")
    network: NetworkSettings = Field(description="Dimensions, texts and head.")
    calibration: Calibration | None = Field(None, description="Null until it was calibrated: scores are raw then.")
    provenance: dict[str, Any] = Field(default={}, description="What it was made from.")

    @model_validator(mode="after")
    def _calibrated_dimensions(self) -> VideoRewardArtifact:
        if self.calibration is not None:
            for name in ("mean", "deviation"):
                if set(getattr(self.calibration, name)) != set(self.network.names):
                    raise ValueError(f"'calibration.{name}' does not name the dimensions of 'network'")
        return self

    def write(self, folder: Path) -> None:
        """Write reward.json."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
        (folder / ARTIFACT_FILE).write_text(text + "\n", encoding="utf-8")


def read_artifact(folder: Path) -> VideoRewardArtifact:
    """Read reward.json of a folder.

    Raises:
        InputError: there is none, or it is not that of a VideoReward.
    """
    path = folder / ARTIFACT_FILE
    if not path.is_file():
        raise InputError(
            "there is no VideoReward in this folder",
            remedy=f"Give a folder with {ARTIFACT_FILE}, {HEAD_FILE} and {MODEL_FOLDER}/, as training or "
            "'kedro import-reward' makes it",
            file=folder,
            field="path",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return VideoRewardArtifact.model_validate(content)
    except ValidationError as error:
        field, problem = setting_trouble(error, VideoRewardArtifact)
        raise InputError(problem, remedy="Make the folder again", file=path, field=field or None) from error
    except ValueError as error:
        raise InputError(f"it is no JSON ({error})", remedy="Make the folder again", file=path) from error


def check_parts(folder: Path) -> None:
    """See that a folder has head and vision-language model. Raises :class:`InputError`, naming what is missing."""
    for place, what in ((folder / HEAD_FILE, "head"), (folder / MODEL_FOLDER, "vision-language model")):
        if not place.exists():
            raise InputError(
                f"the VideoReward lacks its {what}, and none is made up",
                remedy="Make or fetch the model's folder again",
                file=place,
            )


class VideoRewardSettings(Parameters):
    """A VideoReward in a configuration: its folder, and how it is loaded; or, in that folder, what it is."""

    path: str | None = Field(None, description="Folder of the model; in its own reward.json it is left out.")
    device: str = Field("auto", description="Torch device, or 'auto' for CUDA where there is one.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of the model.")
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; null leaves the default.")
    clip_batch: int = Field(
        1,
        ge=1,
        description="Clips read by the model at a time. With 1 a clip's scores do not depend on the clips beside it in "
        "any bit; with more they agree within rounding.",
    )
    clips_per_item: int = Field(32, ge=1, description="Clips scored and stored together.")
    reader_threads: int = Field(2, ge=1, description="Threads that decode clips.")
    overall: Literal["mean", "sum"] = Field("mean", description="How the dimensions' scores become the total.")
    num_frames: int | None = Field(None, ge=1, description="At most so many frames; null for those of training.")
    frames_per_second: float | None = Field(None, gt=0, description="Rate of frames; null for that of training.")
    min_pixels: int | None = Field(None, ge=1, description="Smallest area of a frame; null for that of training.")
    max_pixels: int | None = Field(None, ge=1, description="Largest area of a frame; null for that of training.")
    family: str | None = Field(None, description="In the model's folder only, as all below.")
    network: NetworkSettings | None = Field(None, description="Dimensions, texts and head.")
    calibration: Calibration | None = Field(None, description="Normalisation and probabilities.")
    provenance: dict[str, Any] = Field(default={}, description="What it was made from.")

    @model_validator(mode="after")
    def _a_folder_or_its_content(self) -> VideoRewardSettings:
        own = self.network is not None and self.family is not None
        if (self.path is None) != own or (self.path is not None and self.calibration is not None):
            raise ValueError("give 'path', the folder of a VideoReward")
        return self
