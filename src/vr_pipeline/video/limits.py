"""How clips are read: what ``conf/<env>/reading.yml`` says, for every process of a run."""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vr_pipeline.config import Parameters
from vr_pipeline.runtime.setting_names import validated
from vr_pipeline.video.clip import VideoReadError

VARIABLE = "VR_PIPELINE_READING"
"""Environment variable with the settings as JSON, set from the configuration; handed on to processes that run nodes."""


class ReadingParameters(Parameters):
    """Who decodes videos, and how many pixels one may have."""

    own_clips: Literal["decord", "pyav"] = Field(
        "decord",
        description="Decoder of some frames of clips that the project has made itself, where its answer is proven; "
        "PyAV reads whole clips.",
    )
    other_clips: Literal["decord", "pyav"] = Field(
        "pyav", description="Decoder of all other files: 'pyav', or 'decord' where its answer is proven."
    )
    max_frame_pixels: int = Field(
        100_000_000, ge=1, description="Pixels of an image or a frame; what has more is rejected before it is decoded."
    )
    max_clip_pixels: int = Field(
        2_000_000_000, ge=1, description="Pixels of all frames taken of a clip; 3 bytes each have to fit the memory."
    )
    max_clip_frames: int = Field(
        1_000_000, ge=1, description="Frames of a clip; a longer one is rejected before it is decoded."
    )


def use_settings(settings: Mapping[str, Any]) -> None:
    """Read by these settings from now on, here and in processes that are started from here.

    Raises:
        InputError: naming the setting that is wrong.
    """
    file = Path("conf/<env>/reading.yml")
    chosen = validated(ReadingParameters, dict(settings), remedy="correct the file", file=file)
    os.environ[VARIABLE] = chosen.model_dump_json()


def reading() -> ReadingParameters:
    """Return the settings of this process; the defaults outside a run and outside a command."""
    return _parsed(os.environ.get(VARIABLE, "{}"))


@lru_cache(maxsize=4)
def _parsed(text: str) -> ReadingParameters:
    return ReadingParameters.model_validate_json(text)


def check_length(path: Path, frames: int) -> None:
    """Reject a clip of too many frames. Raises :class:`~vr_pipeline.video.clip.VideoReadError`."""
    limit = reading().max_clip_frames
    if frames > limit:
        raise VideoReadError(
            f"it has more than {limit} frames",
            remedy="Cut it, or raise 'max_clip_frames' in conf/base/reading.yml",
            file=path,
        )


def check_pixels(path: Path, height: int, width: int, frames: int) -> None:
    """Reject what would fill the memory, before it is decoded.

    Raises:
        VideoReadError: a frame, or all frames that are wanted, have more pixels than the limit.
    """
    limits = reading()
    remedy = "Make it smaller, or raise '{}' in conf/base/reading.yml"
    if height * width > limits.max_frame_pixels:
        raise VideoReadError(
            f"it has {height} x {width} pixels, more than {limits.max_frame_pixels / 1e6:g} million",
            remedy=remedy.format("max_frame_pixels"),
            file=path,
        )
    if height * width * frames > limits.max_clip_pixels:
        raise VideoReadError(
            f"{frames} frames of {height} x {width} are more than {limits.max_clip_pixels / 1e6:g} million pixels",
            remedy=remedy.format("max_clip_pixels"),
            file=path,
        )
