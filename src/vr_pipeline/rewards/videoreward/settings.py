"""Settings of a VideoReward: dimensions, texts, head, calibration, and loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER
from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.config import NetworkRewardParameters
from vr_pipeline.runtime.setting_names import read_settings

ARTIFACT_FILE, MODEL_FOLDER, HEAD_FILE = "reward.json", "model", "head.safetensors"
TYPE = "videoreward"
TOTAL = "total"
"""Name of the overall score."""

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Width = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Range = tuple[Positive, Positive]
"""Lowest and highest value."""


class DimensionSettings(Parameters):
    """One dimension of the reward."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9_]+$", description="Name of the dimension, whose score is the column dim_<name>."
    )
    rubric: str = Field("", description="Text before its token, which describes the dimension.")
    token: str = Field("", description="Name of its special token; empty for <|NAME_reward|>.")
    sees_prompt: bool = Field(
        False, description="Whether its token is after the prompt; otherwise its score depends on the clip only."
    )
    criterion: str = Field("", description="Criterion of the labels that train it; empty for its name.")

    @property
    def labelled_by(self) -> str:
        """Criterion of the labels that train it."""
        return self.criterion or self.name


class NetworkSettings(Parameters):
    """Texts after a clip, and reading of scores (Liu et al. 2025, section 4)."""

    dimensions: tuple[DimensionSettings, ...] = Field(min_length=1, description="Dimensions, in this order.")
    introduction: str = Field("", description="Text between the clip and the first rubric.")
    prompt_text: str = Field(
        f"\nTextual prompt - {PROMPT_PLACEHOLDER}\n",
        description=f"Text with the prompt ({PROMPT_PLACEHOLDER}), after the dimensions that do not see it.",
    )
    end: str = Field("", description="Text at the end, for pooling 'last' and 'mean'; special tokens do not see it.")
    head: Literal["shared", "separate"] = Field(
        "shared", description="One vector for the tokens of all dimensions, or one per dimension."
    )
    pooling: Literal["special", "last", "mean"] = Field(
        "special",
        description="Hidden states that are read: of each dimension's special token, of the last token, or the mean of "
        "all tokens. Only 'special' has special tokens and dimensions that do not depend on the prompt.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> NetworkSettings:
        for kind in ("name", "token"):
            values = [value for one in self.dimensions if (value := getattr(one, kind))]
            if len(values) != len(set(values)):
                raise ValueError(f"two dimensions have the same {kind}")
        if TOTAL in self.names:
            raise ValueError(f"'{TOTAL}' is the overall score and cannot be a dimension")
        if self.prompt_text.count(PROMPT_PLACEHOLDER) != 1:
            raise ValueError(f"'prompt_text' must contain {PROMPT_PLACEHOLDER} once")
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
        """Names of the dimensions whose scores do not depend on the prompt."""
        if self.pooling != "special":
            return ()
        return tuple(one.name for one in self.dimensions if not one.sees_prompt)

    def token_of(self, dimension: DimensionSettings) -> str:
        """Return the name of a dimension's special token."""
        return dimension.token or f"<|{dimension.name}_reward|>"


class SeenClips(Parameters):
    """Ranges (lowest, highest) of the training clips."""

    frames_per_second: Range = Field(description="Rate of the frames shown, in 1/s.")
    pixels: Range = Field(description="Area of a frame in the file, in pixels.")
    seconds: Range = Field(description="Length of a clip, in s.")
    clips: int = Field(ge=1, description="Number of clips.")


class Calibration(Parameters):
    """Conversion of the head's outputs to scores and probabilities, from held-out clips and pairs.

    The score of a dimension is (raw - mean) / deviation. Differences of scores become probabilities by Bradley-Terry
    with ties (Rao and Kupper 1967): P(win) = s(scale d - ln theta).
    """

    mean: dict[str, Finite] = Field(description="Mean of the head's output, by dimension.")
    deviation: dict[str, Positive] = Field(description="Standard deviation of the head's output, by dimension.")
    clips: int = Field(0, ge=0, description="Held-out clips behind mean and deviation; 0 if unknown.")
    tie_threshold: dict[str, Length] = Field(
        default={},
        description="Largest difference of scores that counts as a tie, by dimension and for 'total'.",
    )
    scale: dict[str, Positive] = Field(
        default={},
        description="Factor of score differences for probabilities, by dimension and for 'total'.",
    )
    theta: dict[str, Width] = Field(default={}, description="Width of ties, 1 or more, by dimension and for 'total'.")
    pairs: dict[str, int] = Field(
        default={}, description="Held-out pairs for these three, by dimension and for 'total'."
    )
    seen: SeenClips | None = Field(None, description="Ranges of the training clips; null if unknown.")


class VideoRewardArtifact(Parameters):
    """The file reward.json of a VideoReward's folder."""

    type: Literal["videoreward"] = Field("videoreward", description="Type of the reward.")
    family: str = Field(description="Family of the vision-language model.")
    network: NetworkSettings = Field(description="Dimensions, texts and head.")
    calibration: Calibration | None = Field(None, description="Calibration; null for raw scores.")
    provenance: dict[str, Any] = Field(default={}, description="What it was made from.")

    @model_validator(mode="after")
    def _calibrated_dimensions(self) -> VideoRewardArtifact:
        if self.calibration is not None:
            for name in ("mean", "deviation"):
                if set(getattr(self.calibration, name)) != set(self.network.names):
                    raise ValueError(f"'calibration.{name}' must have the dimensions of 'network'")
        return self

    def write(self, folder: Path) -> None:
        """Write reward.json."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
        (folder / ARTIFACT_FILE).write_text(text + "\n", encoding="utf-8")


def read_artifact(folder: Path) -> VideoRewardArtifact:
    """Read reward.json of a folder. Raises :class:`InputError` if it is missing or invalid."""
    path = folder / ARTIFACT_FILE
    if not path.is_file():
        raise InputError(
            "this folder has no VideoReward",
            remedy=f"Give a folder with {ARTIFACT_FILE}, {HEAD_FILE} and {MODEL_FOLDER}/, written by training or "
            "'kedro import-reward'",
            file=folder,
            field="path",
        )
    return read_settings(path, VideoRewardArtifact, remedy="Make the folder again")


def check_parts(folder: Path) -> None:
    """Raise :class:`InputError` if a folder lacks head or vision-language model."""
    for place, what in ((folder / HEAD_FILE, "head"), (folder / MODEL_FOLDER, "vision-language model")):
        if not place.exists():
            raise InputError(
                f"the VideoReward has no {what}",
                remedy="Train or download the model's folder again",
                file=place,
            )


class VideoRewardSettings(NetworkRewardParameters):
    """A VideoReward in a configuration: its folder and loading; or, in that folder, its content."""

    path: str | None = Field(None, description="Folder of the model; omitted in its reward.json.")
    overall: Literal["mean", "sum"] = Field("mean", description="The total: mean or sum of the dimensions.")
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
