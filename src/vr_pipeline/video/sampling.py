"""Which frames stand for a clip, by number or by time."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 1e-6
"""Seconds, or frames: containers round times, so what is due at a moment may stand just behind it."""
_FASTEST = 1000.0
"""Frames a second. What a container states above this is a clock's rate, not a clip's."""
_SLOWEST = 0.01
"""Frames a second. What a container states below this comes of a broken time."""
LONGEST = 3600.0
"""Seconds. A frame that would stay longer has a broken time."""


def sample_indices(
    count: int,
    clip_fps: float,
    *,
    num_frames: int | None = None,
    frames_per_second: float | None = None,
    times: Sequence[float] | None = None,
) -> list[int]:
    """Return which frames of a clip a sampling takes: strictly increasing indices in [0, count).

    Args:
        count: frames in the clip, at least 1.
        clip_fps: the clip's frames a second; 0 if unknown, then ``frames_per_second`` has no effect.
        num_frames: upper limit; evenly spread with both ends included, one frame is the first.
        frames_per_second: the rate to sample at; a rate above the clip's own takes every frame.
        times: when each frame is shown, in seconds from 0 on, ascending, where that is no steady rate; then the sample
            is spread over the time, and may have fewer frames than ``num_frames``.

    Raises:
        ValueError: an option is not positive.
    """
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")
    if frames_per_second is not None and not 0 < frames_per_second < np.inf:
        raise ValueError(f"fps must be above 0 and finite, got {frames_per_second}")
    indices = np.arange(count)
    if times is not None and frames_per_second is not None:
        indices = _on_the_beat(np.asarray(times, dtype=np.float64), 1 / frames_per_second)
    elif times is not None and num_frames is not None:
        moments = np.linspace(0, times[-1], min(num_frames, count))
        indices = np.unique(np.searchsorted(times, moments + _ROUNDING, side="right") - 1)
    elif frames_per_second is not None and clip_fps > 0 and frames_per_second < clip_fps:
        step = clip_fps / frames_per_second
        # Rounding must not turn a whole number into the one below it, nor pass the end.
        indices = np.unique(np.minimum(np.floor(np.arange(0, count, step) + _ROUNDING).astype(int), count - 1))
    if num_frames is not None and num_frames < len(indices):
        indices = indices[np.floor(np.linspace(0, len(indices) - 1, num_frames) + 0.5).astype(int)]
    return [int(index) for index in indices]


def _on_the_beat(times: NDArray[np.float64], step: float) -> NDArray[np.int64]:
    """Return frames that are on the screen at a multiple of ``step`` seconds; a long pause costs no memory."""
    # The last frame stays for a while too: an average one is assumed.
    beats = np.ceil(times[-1] * len(times) / (len(times) - 1) / step)
    until = np.append(times[1:], np.inf) - _ROUNDING
    first = np.ceil((times - _ROUNDING) / step)
    # Division and multiplication round differently: the first beat at or behind the frame's time may be a neighbour.
    first = np.where((first - 1) * step >= times - _ROUNDING, first - 1, first)
    first = np.maximum(np.where(first * step >= times - _ROUNDING, first, first + 1), 0)
    return np.flatnonzero((first * step < until) & (first < max(beats, 1)))


def usable_times(times: Sequence[float | None], longest: float = LONGEST) -> list[float] | None:
    """Return times in seconds after the first; None where one is missing, runs backwards, or is absurd.

    Args:
        longest: a frame that would stay longer, in seconds, has a broken time.
    """
    if not times or any(time is None for time in times):
        return None
    shown = np.array(times, dtype=np.float64)
    gaps = np.diff(shown)
    if not np.isfinite(shown).all() or (gaps < 0).any() or (gaps > longest).any():
        return None
    return [float(time) for time in shown - shown[0]]


def unless_steady(times: Sequence[float] | None) -> Sequence[float] | None:
    """Return times where they stray from a steady rate by more than a frame and a half, None elsewhere.

    Containers round times, and telephones' rates tremble: there the count of frames is as good a clock.
    """
    if times is None or len(times) < 3 or times[-1] <= 0:
        return None
    interval = times[-1] / (len(times) - 1)
    strays = np.abs(np.asarray(times) - interval * np.arange(len(times))).max() > 1.5 * interval
    return times if strays else None


def plausible_rate(stated: float, times: Sequence[float | None] | None, longest: float = LONGEST) -> float:
    """Return frames a second: what the container states, or what its times say where that differs; 0 where unknown.

    Args:
        stated: by the container.
        times: of the frames, in seconds, as far as they are known.
    """
    stated = stated if _SLOWEST <= stated <= _FASTEST else 0.0
    usable = usable_times(times or [], longest)
    if usable is not None and usable[-1] > 0:
        measured = (len(usable) - 1) / usable[-1]
        # How long the last frame stays is in one figure and not in the other.
        tolerance = 0.01 + 2 / len(usable)
    else:
        pairs = [(one, other) for one, other in pairwise(times or []) if one is not None and other is not None]
        gaps = [other - one for one, other in pairs if 0 < other - one <= longest]
        if not gaps:
            return stated
        measured, tolerance = 1 / float(np.median(gaps)), 1.0
    if stated and abs(stated - measured) <= measured * tolerance:
        return stated
    return measured if measured <= _FASTEST else 0.0
