"""What is known of a clip, and why one cannot be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.errors import InputError

Frames = NDArray[np.uint8]


class VideoReadError(InputError):
    """A file cannot be read as a video or an image."""


@dataclass(frozen=True)
class VideoInformation:
    """What is known of a clip; an image has one frame and 0 frames a second.

    Attributes:
        num_frames: frames that a player shows.
        fps: frames a second, finite; 0 where unknown.
        height: of a frame that stands upright, in pixels.
        width: the same.
        times: when each frame is shown, in seconds after the first; only where frames do not come at a steady rate.
    """

    num_frames: int
    fps: float
    height: int
    width: int
    times: Sequence[float] | None = field(default=None, repr=False, compare=False)


Choose = Callable[[VideoInformation], list[int]]
"""Which frames of a clip are wanted: strictly increasing indices."""
Reading = tuple[Frames, list[int], VideoInformation]
"""Frames uint8 [frames, height, width, 3], their indices, and what is known of the whole clip."""
