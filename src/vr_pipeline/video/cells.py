"""Clips reduced to a few cells and frames, so that any two can be compared by their pixels."""

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.video.clip import Frames


def cells(frames: Frames, *, side: int, times: int) -> NDArray[np.float64]:
    """Return a clip as means over its cells, [times, side, side, 3] in 0..1.

    Args:
        frames: uint8 [frames, height, width, 3].
        side: cells of each side of a frame.
        times: frames, evenly spread over the clip.
    """
    chosen = np.linspace(0, len(frames) - 1, times).round().astype(int)
    clip = frames[chosen].astype(np.float64) / 255
    for axis in (1, 2):
        size = clip.shape[axis]
        # A clip smaller than the cells is repeated; otherwise each cell is a mean over its own pixels.
        edges = np.linspace(0, size, side + 1).astype(int)
        edges = np.minimum(edges[:-1], size - 1)
        counts = np.maximum(np.diff(np.append(edges, size)), 1)
        shape = [1] * clip.ndim
        shape[axis] = side
        clip = np.add.reduceat(clip, edges, axis=axis) / counts.reshape(shape)
    return clip


def distance(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the root mean square difference of two reduced clips, in shares of the range of pixels."""
    return float(np.sqrt(np.mean((first - second) ** 2)))
