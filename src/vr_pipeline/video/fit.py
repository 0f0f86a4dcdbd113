"""Clips of any origin, cut to what a generator takes by a stated rule; nothing is stretched.

Frames: where the rates of clip and generator are known and differ by more than a hundredth, the clip is shown at the
generator's rate (the frame that a player would show at each moment); then the first frames, or those around the
middle, are taken. Pixels: the picture is scaled, both sides alike, until it covers the wanted size (what stands out is
cut off, the centre stays) or until it fits into it (the rest is black). Reductions by a whole number average blocks of
pixels, all other changes of size use the Lanczos filter.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from vr_pipeline.config import Parameters
from vr_pipeline.video.clip import Frames, VideoInformation, VideoReadError
from vr_pipeline.video.read import read_chosen

_SAME_RATE = 0.01
_ROUNDING = 1e-6


class FitParameters(Parameters):
    """How a clip is made to fit a generator."""

    shape: Literal["crop", "pad", "reject"] = Field(
        "crop",
        description="A clip of another aspect ratio is scaled to cover the generator's size and cut at the centre, or "
        "scaled to lie within it on black, or rejected.",
    )
    window: Literal["first", "centre"] = Field(
        "first", description="Which frames of a longer clip are taken: the first, or those around its middle."
    )
    too_short: Literal["reject", "repeat_last"] = Field(
        "reject", description="A clip of too few frames is rejected, or its last frame is repeated."
    )


@dataclass(frozen=True)
class Wanted:
    """What a generator takes.

    Attributes:
        num_frames: frames of a clip.
        height, width: in pixels.
        fps: frames a second; of no effect for single images.
    """

    num_frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True)
class Rule:
    """What is done to one clip.

    Attributes:
        frames: indices of the clip's frames, in the order in which they are shown; one may stand several times.
        scaled: height and width after scaling, before cutting or padding.
        changes: what differs from the file, in words; empty for none.
        problem: why the clip cannot be used; empty if it can.
    """

    frames: tuple[int, ...]
    scaled: tuple[int, int]
    changes: tuple[str, ...] = ()
    problem: str = ""


def fitting_rule(clip: VideoInformation, wanted: Wanted, parameters: FitParameters) -> Rule:
    """Return what makes a clip fit; nothing is read."""
    frames, of_frames, lacking = _frames(clip, wanted, parameters)
    scaled, of_pixels, odd = _scaled(clip, wanted, parameters)
    return Rule(tuple(frames), scaled, (*of_frames, *of_pixels), "; ".join(filter(None, (lacking, odd))))


def _frames(clip: VideoInformation, wanted: Wanted, parameters: FitParameters) -> tuple[list[int], list[str], str]:
    count, rate = clip.num_frames, clip.fps
    shown = list(range(count))
    changes = []
    other_rate = rate > 0 and abs(rate / wanted.fps - 1) > _SAME_RATE
    if wanted.num_frames > 1 and count > 1 and (other_rate or clip.times is not None):
        shown = _at_rate(clip, wanted.fps)
        if shown != list(range(count)):
            changes.append(f"{rate:g} to {wanted.fps:g} frames a second")
    missing = wanted.num_frames - len(shown)
    if missing > 0:
        have = f"{len(shown)} frames" + (f" at {wanted.fps:g} a second" if changes else "")
        if parameters.too_short == "reject":
            return shown, changes, f"too short: it has {have}, and the generator takes {wanted.num_frames}"
        changes.append(f"last frame repeated {missing} times")
        return [*shown, *[shown[-1]] * missing], changes, ""
    if missing < 0:
        start = 0 if parameters.window == "first" else -missing // 2
        changes.append(f"frames {start + 1} to {start + wanted.num_frames} of {len(shown)}")
        shown = shown[start : start + wanted.num_frames]
    return shown, changes, ""


def _at_rate(clip: VideoInformation, rate: float) -> list[int]:
    """Return the frame that is shown at every beat of a rate, from the clip's start to its end."""
    count = clip.num_frames
    if clip.times is not None:
        times = np.asarray(clip.times, dtype=np.float64)
        # The last frame stays for a while too: an average one is assumed.
        length = times[-1] * count / (count - 1)
        beats = np.arange(math.ceil(length * rate - _ROUNDING)) / rate
        return (np.searchsorted(times, beats + _ROUNDING, side="right") - 1).tolist()  # type: ignore[no-any-return]
    shown = np.floor(np.arange(math.ceil(count * rate / clip.fps - _ROUNDING)) * clip.fps / rate + _ROUNDING)
    return np.minimum(shown, count - 1).astype(int).tolist()  # type: ignore[no-any-return]


def _scaled(
    clip: VideoInformation, wanted: Wanted, parameters: FitParameters
) -> tuple[tuple[int, int], list[str], str]:
    ratios = (wanted.height / clip.height, wanted.width / clip.width)
    factor = min(ratios) if parameters.shape == "pad" else max(ratios)
    # A side is rounded up to the wanted one where it covers, and kept within it where it is padded.
    bound = min if parameters.shape == "pad" else max
    height, width = (
        round(side * factor) if abs(side * factor - goal) > 0.5 else goal
        for side, goal in ((clip.height, wanted.height), (clip.width, wanted.width))
    )
    scaled = (bound(height, wanted.height), bound(width, wanted.width))
    changes = []
    if scaled != (clip.height, clip.width):
        verb = "reduced" if factor < 1 else "enlarged"
        changes.append(f"{verb} from {clip.height} x {clip.width} to {scaled[0]} x {scaled[1]}")
    if scaled != (wanted.height, wanted.width):
        if parameters.shape == "reject":
            shape = f"{clip.height} x {clip.width} pixels"
            return scaled, changes, f"another shape: it has {shape}, the generator {wanted.height} x {wanted.width}"
        verb = "padded" if parameters.shape == "pad" else "cut"
        changes.append(f"{verb} to {wanted.height} x {wanted.width}")
    return scaled, changes, ""


def fit_frames(frames: Frames, scaled: tuple[int, int], wanted: Wanted) -> Frames:
    """Return pictures scaled and then cut, or padded with black, around their centre.

    Args:
        frames: uint8 [frames, height, width, 3].
        scaled: height and width to scale to, both sides alike.
        wanted: the size to end with.
    """
    pictures = resized(frames, scaled)
    for axis, goal in ((1, wanted.height), (2, wanted.width)):
        side = pictures.shape[axis]
        if side > goal:
            start = (side - goal) // 2
            pictures = pictures.take(range(start, start + goal), axis=axis)
        elif side < goal:
            before = (goal - side) // 2
            widths = [(0, 0)] * 4
            widths[axis] = (before, goal - side - before)
            pictures = np.pad(pictures, widths)
    return np.ascontiguousarray(pictures)


def cover(picture: Frames, height: int, width: int) -> Frames:
    """Return a picture, uint8 [height, width, 3], scaled to cover a size and cut at the centre."""
    wanted = Wanted(1, height, width, 0.0)
    rule = fitting_rule(VideoInformation(1, 0.0, *picture.shape[:2]), wanted, FitParameters())
    return fit_frames(picture[None], rule.scaled, wanted)[0]


def resized(frames: Frames, size: tuple[int, int]) -> Frames:
    """Return frames of another height and width, by means over whole squares of pixels, else by Lanczos' filter."""
    height, width = frames.shape[1:3]
    if (height, width) == size:
        return frames
    from PIL import Image

    whole = height % size[0] == 0 and width % size[1] == 0 and height // size[0] == width // size[1]
    method = Image.Resampling.BOX if whole else Image.Resampling.LANCZOS
    pictures = [Image.fromarray(frame).resize(size[::-1], method) for frame in frames]
    return np.stack([np.asarray(picture, dtype=np.uint8) for picture in pictures])


def read_fitted(path: Path, wanted: Wanted, parameters: FitParameters) -> Frames:
    """Read a clip as a generator takes it; only the frames that are needed are decoded.

    Returns:
        uint8 [num_frames, height, width, 3].

    Raises:
        VideoReadError: the clip cannot be read, or its rule says that it cannot be used.
    """

    def choose(clip: VideoInformation) -> list[int]:
        # Of a picture the size is known once it is read.
        frames, _, problem = _frames(clip, wanted, parameters)
        if problem:
            raise VideoReadError(problem, remedy="Give a longer clip, or set too_short: repeat_last", file=path)
        return sorted(set(frames))

    frames, taken, clip = read_chosen(path, choose)
    rule = fitting_rule(clip, wanted, parameters)
    if rule.problem:
        raise VideoReadError(rule.problem, remedy="Give another clip, or set shape: crop", file=path)
    places = {index: place for place, index in enumerate(taken)}
    return fit_frames(frames[[places[index] for index in rule.frames]], rule.scaled, wanted)


class FittedClips:
    """Clips of a folder as a generator takes them, read when they are asked for.

    Args:
        files: video_id to the file.
        wanted: what the generator takes.
        parameters: the rule.
    """

    def __init__(self, files: Mapping[str, Path], wanted: Wanted, parameters: FitParameters) -> None:
        self._files, self._wanted, self._parameters = dict(files), wanted, parameters

    def __contains__(self, key: object) -> bool:
        return key in self._files

    def load(self, key: str) -> Frames:
        """Return a clip, uint8 [frames, height, width, 3]; raises as :func:`read_fitted` does."""
        return read_fitted(self._files[key], self._wanted, self._parameters)
