"""Frames to model inputs: resizing and patches, without torchvision.

The families' official processors resize images by Pillow and clips by torchvision, which rounds weights and values
otherwise. So do these functions: the kernel that torchvision calls is torch's own.
"""

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.video.read import Frames


@lru_cache(maxsize=64)
def area_weights(source: int, target: int) -> NDArray[np.float32]:
    """Return matrix [target, source] that averages along one axis by overlap; its rows sum to 1.

    Each target pixel covers source/target source pixels. Exact block means for whole ratios; when the target is
    larger, each target pixel takes the source pixels it lies in.
    """
    edges = np.arange(target + 1, dtype=np.float64) * source / target
    low, high = edges[:-1, None], edges[1:, None]
    pixels = np.arange(source)[None, :]
    overlap = np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0.0, None)
    return (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)


def resize_area(frames: Frames, height: int, width: int) -> NDArray[np.float32]:
    """Average by area to the given size; float32 in 0 to 255.

    Args:
        frames: uint8 [frames, height, width, 3].
    """
    source_height, source_width = frames.shape[1:3]
    if source_height % height == 0 and source_width % width == 0:
        # Whole ratios: sums of integers are exact, so a clip stored enlarged gives the same values as the original.
        rows, columns = source_height // height, source_width // width
        blocks = frames.reshape(len(frames), height, rows, width, columns, 3)
        return (blocks.sum(axis=(2, 4), dtype=np.float32) / np.float32(rows * columns)).astype(np.float32)
    return np.einsum(
        "hi,fijc,wj->fhwc",
        area_weights(source_height, height),
        frames.astype(np.float32),
        area_weights(source_width, width),
        optimize=True,
    ).astype(np.float32)


def _resize_by_torch(frames: Frames, height: int, width: int, mode: str) -> NDArray[np.float32]:
    """Resize with antialiasing, rounded to the whole values that torchvision computes on a CPU."""
    import torch

    if frames.shape[1:3] == (height, width):
        return frames.astype(np.float32)
    pixels = torch.from_numpy(np.require(frames, requirements=["C", "W"])).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        pixels, size=(height, width), mode=mode, align_corners=False, antialias=True
    )
    return resized.permute(0, 2, 3, 1).numpy().astype(np.float32)


def _resize_by_pillow(frames: Frames, height: int, width: int, name: str) -> NDArray[np.float32]:
    """Resize each frame with antialiasing as Pillow does, rounded to whole values; float32 in 0 to 255."""
    from PIL import Image

    if frames.shape[1:3] == (height, width):
        return frames.astype(np.float32)
    resample = Image.Resampling[name]
    resized = [np.asarray(Image.fromarray(frame).resize((width, height), resample=resample)) for frame in frames]
    return np.stack(resized).astype(np.float32)


Resize = Callable[[Frames, int, int], NDArray[np.float32]]
resize_bicubic: Resize = partial(_resize_by_pillow, name="BICUBIC")
resize_lanczos: Resize = partial(_resize_by_pillow, name="LANCZOS")
resize_clip_bicubic: Resize = partial(_resize_by_torch, mode="bicubic")
resize_clip_lanczos: Resize = partial(_resize_by_torch, mode="lanczos")
RESIZERS: dict[str, Resize] = {"area": resize_area, "bicubic": resize_bicubic, "lanczos": resize_lanczos}
"""Name in the settings -> frames, height, width -> resized frames; of images."""
CLIP_RESIZERS: dict[str, Resize] = {"area": resize_area, "bicubic": resize_clip_bicubic, "lanczos": resize_clip_lanczos}
"""The same of clips."""


def check_elongation(height: int, width: int) -> None:
    """Raise ValueError where one side is more than 200 times the other."""
    if max(height, width) > 200 * min(height, width):
        raise ValueError(f"a frame of {height} x {width} pixels is too elongated (more than 200 to 1)")


def fitting_size(height: int, width: int, *, multiple: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return height and width near the given ones, multiples of ``multiple``, with an area within limits, aspect kept.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    check_elongation(height, width)
    return smart_resize(height, width, multiple, min_pixels, max_pixels)


def fitting_size_of_clip(
    count: int, height: int, width: int, *, multiple: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """As :func:`fitting_size`, with limits of the pixels of all frames together, two or more, which are read in pairs.

    Raises:
        ValueError: one side is more than 200 times the other.
    """
    from transformers.models.glm46v.image_processing_pil_glm46v import smart_resize

    check_elongation(height, width)
    return smart_resize(count, height, width, 2, multiple, min_pixels, max_pixels)


def normalise(frames: NDArray[np.float32], mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Scale 0 to 255 to 0 to 1, subtract the mean and divide by the standard deviation, channel by channel."""
    scaled: NDArray[np.float32] = (frames * np.float32(1 / 255)).astype(np.float32)
    shifted = scaled - np.asarray(mean, dtype=np.float32)
    return (shifted / np.asarray(std, dtype=np.float32)).astype(np.float32)


def patchify(
    frames: NDArray[np.float32], *, patch: int, temporal_patch: int, merge: int
) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """Cut space-time patches in the order of Qwen2-VL: neighbours that are merged into one token lie together.

    Args:
        frames: [frames, height, width, 3]; height and width multiples of patch * merge. The last frame is repeated
            until the number of frames is a multiple of ``temporal_patch``.

    Returns:
        patches [time * rows * columns, 3 * temporal_patch * patch * patch] and the grid (time, rows, columns).
    """
    missing = -len(frames) % temporal_patch
    if missing:
        frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    time, rows, columns = (len(frames) // temporal_patch, frames.shape[1] // patch, frames.shape[2] // patch)
    blocks = frames.reshape(
        time, temporal_patch, rows // merge, merge, patch, columns // merge, merge, patch, frames.shape[3]
    )
    # -> time, row block, column block, row in block, column in block, channel, time in patch, y, x
    ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return ordered.reshape(time * rows * columns, -1), (time, rows, columns)
