"""Clips in the size at which people look at them."""

import numpy as np

from vr_pipeline.video.clip import Frames

SMALLEST_SIDE, LARGEST_SIDE = 192, 320
"""Pixels: smaller clips are enlarged by whole factors to at least the first, larger ones reduced to the second."""


def resize(frames: Frames, side: int) -> Frames:
    """Enlarge small clips by a whole factor (pixels stay sharp) or reduce large ones to ``side``; sides are even."""
    height, width = frames.shape[1:3]
    longest = max(height, width)
    if longest < SMALLEST_SIDE:
        factor = -(-min(SMALLEST_SIDE, side) // longest)
        frames = frames.repeat(factor, axis=1).repeat(factor, axis=2)
        height, width = frames.shape[1:3]
    scale = min(1.0, side / max(height, width))
    target = (max(2, round(height * scale / 2) * 2), max(2, round(width * scale / 2) * 2))
    if target == (height, width):
        return frames
    from PIL import Image

    resized = [Image.fromarray(frame).resize(target[::-1], Image.Resampling.LANCZOS) for frame in frames]
    return np.stack([np.asarray(image, dtype=np.uint8) for image in resized])
