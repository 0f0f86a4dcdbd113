"""Baselines without a model or prompt: sharpness, motion, saturation and length of a clip as rewards."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from vr_pipeline.config import Parameters
from vr_pipeline.rewards.contract import Outcome, RewardModel
from vr_pipeline.video.clip import Frames
from vr_pipeline.video.sampled import SampledClip, Sampling

SIGNALS = ("sharpness", "motion", "saturation", "length")
Signal = Literal["sharpness", "motion", "saturation", "length"]

_LUMA = np.array([0.299, 0.587, 0.114])
_LEVELS, _ROUNDS, _SIGMA = 4, 3, 2.0
_SMALLEST = 12
"""Shortest side of a pyramid level, in pixels."""

FloatArray = NDArray[np.float64]


class SignalsSettings(Parameters):
    """Which signal is the total."""

    total: Signal | None = Field(
        "sharpness", description="The signal used as reward; null for all signals as dimensions, with a total of 0."
    )
    max_frames: int = Field(16, ge=2, description="Largest number of frames, evenly spread over the clip.")
    longest_side: int = Field(128, ge=8, description="Longest side of a frame when motion is measured, in pixels.")


class SignalsReward(RewardModel):
    """Signals of a clip, computed from its pixels.

    ``dim_sharpness`` is the mean variance of the Laplacian of the luma (0 to 1 scale); ``dim_motion`` the mean length
    of the optical flow from frame to frame, as a share of the longest side per second; ``dim_saturation`` the mean
    saturation (HSV); ``dim_length`` the clip's seconds.
    """

    Settings = SignalsSettings
    kind = "signals"

    def __init__(self, total: Signal | None = "sharpness", max_frames: int = 16, longest_side: int = 128) -> None:
        self.dimensions = SIGNALS if total is None else (total,)
        self.total, self.max_frames, self.longest_side = total, max_frames, longest_side

    @property
    def measured_by(self) -> tuple[str, ...]:
        return ("signals 1", str(self.max_frames), str(self.longest_side))

    @property
    def depends_on(self) -> tuple[str, ...]:
        return (*self.measured_by, str(self.total))

    def sampling(self, loaded: None) -> Sampling:
        return Sampling(self.max_frames)

    def look(self, loaded: None, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Compute the signals of clips."""
        return [self._row(clip) for clip in clips]

    def _row(self, clip: SampledClip) -> pd.DataFrame:
        frames = clip.frames
        rate = clip.frames_per_second if clip.rate_known and clip.frames_per_second else 1.0
        values = {
            "sharpness": sharpness(frames),
            "motion": motion(frames, self.longest_side) * rate,
            "saturation": saturation(frames),
            "length": len(frames) / rate,
        }
        return pd.DataFrame([{f"dim_{name}": values[name] for name in SIGNALS}])

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Return the chosen signal as total, or all as dimensions without a sum, since their scales differ."""
        total = 0.0 if self.total is None else measured[f"dim_{self.total}"]
        return super().rewards(measured.assign(total=total), index)


def sharpness(frames: Frames) -> float:
    """Return the mean over frames of the variance of the Laplacian of the luma (Pech-Pacheco et al. 2000)."""
    from scipy.ndimage import laplace

    return float(np.mean([laplace(frame, mode="nearest").var() for frame in _luma(frames)]))


def saturation(frames: Frames) -> float:
    """Return the mean saturation, (largest - smallest) / largest of the channels, 0 for black."""
    largest, smallest = frames.max(axis=-1).astype(np.float64), frames.min(axis=-1).astype(np.float64)
    return float(((largest - smallest) / np.maximum(largest, 1.0)).mean())


def motion(frames: Frames, longest_side: int = 128) -> float:
    """Return the mean length of the optical flow between neighbouring frames, as a share of the longest side.

    Args:
        frames: uint8 [frames, height, width, 3]; one frame does not move.
        longest_side: frames are first reduced to it, by block means.
    """
    if len(frames) < 2:
        return 0.0
    small = [_shrunk(frame, longest_side) for frame in _luma(frames)]
    lengths = [np.hypot(*optical_flow(one, other)).mean() for one, other in pairwise(small)]
    return float(np.mean(lengths) / max(small[0].shape))


def optical_flow(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the flow from one picture to the next by Lucas and Kanade 1981, from coarse to fine.

    Args:
        first, second: luma [height, width].

    Returns:
        shift of each pixel of the first picture in rows and columns, [height, width] each; 0 without texture.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates, sobel

    pyramid = [(first, second)]
    while len(pyramid) < _LEVELS and min(pyramid[-1][0].shape) >= 2 * _SMALLEST:
        one, other = (_halved(gaussian_filter(picture, 1.0)) for picture in pyramid[-1])
        pyramid.append((one, other))
    flow = np.zeros((2, *pyramid[-1][0].shape))
    for one, other in reversed(pyramid):
        if flow.shape[1:] != one.shape:
            flow = 2.0 * np.stack([_doubled(part, one.shape) for part in flow])
        grid = np.mgrid[: one.shape[0], : one.shape[1]].astype(np.float64)
        for _ in range(_ROUNDS):
            moved = map_coordinates(other, grid + flow, order=1, mode="nearest")
            rows, columns = (sobel(moved, axis=axis, mode="nearest") / 8.0 for axis in (0, 1))
            change = moved - one
            products = (rows * rows, columns * columns, rows * columns, rows * change, columns * change)
            rr, cc, rc, rt, ct = (gaussian_filter(product, _SIGMA, mode="nearest") for product in products)
            # Regularised, so that areas without texture do not move.
            rr, cc = rr + 1e-4, cc + 1e-4
            determinant = rr * cc - rc * rc
            flow = flow - np.stack([cc * rt - rc * ct, rr * ct - rc * rt]) / determinant
    return flow[0], flow[1]


def _luma(frames: Frames) -> FloatArray:
    luma: FloatArray = frames.astype(np.float64) @ _LUMA / 255.0
    return luma


def _shrunk(picture: FloatArray, longest_side: int) -> FloatArray:
    """Reduce by a whole factor, by block means."""
    factor = -(-max(picture.shape) // longest_side)
    if factor == 1:
        return picture
    height, width = (max(size // factor, 1) for size in picture.shape)
    cut = picture[: height * factor, : width * factor]
    if min(cut.shape) < factor:
        return picture[::factor, ::factor]
    small: FloatArray = cut.reshape(height, factor, width, factor).mean(axis=(1, 3))
    return small


def _halved(picture: FloatArray) -> FloatArray:
    return picture[::2, ::2]


def _doubled(picture: FloatArray, shape: Sequence[int]) -> FloatArray:
    return picture.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]
