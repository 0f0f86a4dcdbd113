"""An image in high resolution as tiles of the size a vision tower reads, the way the families' own processors cut.

Three rules are in use. LLaVA-OneVision letterboxes the image into one of a list of resolutions ("anyres"). InternVL
stretches it over the grid of tiles whose shape is nearest to the image's. SmolVLM scales the longer side to a given
length and both up to whole tiles. All three add the whole image as one more tile.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.video.read import Frames
from vr_pipeline.vlm.frames import Resize

Tiles = NDArray[np.float32]
Size = tuple[int, int]


def cut(image: Tiles, height: int, width: int) -> Tiles:
    """Cut an image [rows * height, columns * width, 3] into tiles, row by row: [rows * columns, height, width, 3]."""
    rows, columns = image.shape[0] // height, image.shape[1] // width
    blocks = image.reshape(rows, height, columns, width, image.shape[2])
    return blocks.transpose(0, 2, 1, 3, 4).reshape(rows * columns, height, width, image.shape[2])


def letterbox(frames: Frames, size: Size, resize: Resize) -> Tiles:
    """Scale one image into ``size`` with its aspect kept, black on both sides of what is left; [height, width, 3]."""
    from transformers.image_processing_utils import get_patch_output_size

    inner = get_patch_output_size(frames[0], size, input_data_format="channels_last")
    canvas = np.zeros((*size, 3), np.float32)
    top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = resize(frames, *inner)[0]
    return canvas


def anyres_tiles(frames: Frames, tile: int, candidates: Sequence[Size], resize: Resize) -> Tiles:
    """LLaVA-OneVision: the whole image first, then the tiles of the letterboxed one; [tiles, tile, tile, 3]."""
    from transformers.image_processing_utils import select_best_resolution

    chosen = select_best_resolution(frames.shape[1:3], candidates)
    return np.concatenate([resize(frames, tile, tile), cut(letterbox(frames, chosen, resize), tile, tile)])


def anyres_token_count(size: Size, tile_tokens: int, tile: int, candidates: Sequence[Size], max_tiles: int) -> int:
    """Count LLaVA-OneVision's tokens of an image: of the whole, of the tiles without their black sides, newlines.

    Args:
        size: height and width of the image.
        tile_tokens: tokens along one side of a tile.
        tile: side of a tile in pixels.
        candidates: resolutions that are tiled.
        max_tiles: above about so many tiles' worth of tokens the grid of tokens is thinned out.
    """
    from transformers.image_processing_utils import select_best_resolution

    chosen = select_best_resolution(size, candidates)
    height, width = tile_tokens * (chosen[0] // tile), tile_tokens * (chosen[1] // tile)
    if size[1] / size[0] > width / height:
        height -= (height - int(round(size[0] * (width / size[1]), 7))) // 2 * 2
    else:
        width -= (width - int(round(size[1] * (height / size[0]), 7))) // 2 * 2
    ratio = math.sqrt(height * width / (max_tiles * tile_tokens**2))
    if ratio > 1.1:
        height, width = int(height // ratio), int(width // ratio)
    # One newline token ends each row.
    return tile_tokens**2 + height * (width + 1)


def grid_tiles(frames: Frames, tile: Size, max_tiles: int, resize: Resize) -> Tiles:
    """InternVL: tiles of the stretched image, then the whole image unless there is one tile only."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    columns, rows = get_optimal_tiled_canvas(frames.shape[1:3], tile, 1, max_tiles)
    tiles = cut(resize(frames, rows * tile[0], columns * tile[1])[0], *tile)
    return tiles if len(tiles) == 1 else np.concatenate([tiles, resize(frames, *tile)])


def longest_side_size(size: Size, longest: int) -> Size:
    """Return height and width with the longer side of the given length; the other keeps the aspect and is made even."""
    height, width = size
    if width >= height:
        other = int(longest / (width / height))
        return max(other + other % 2, 1), longest
    other = int(longest * (width / height))
    return longest, max(other + other % 2, 1)


def squared(frames: Frames, longest: int, tile: int, resize: Resize) -> Tiles:
    """SmolVLM without tiles: scaled to the longer side's length, then made square; [frames, tile, tile, 3]."""
    scaled = resize(frames, *longest_side_size((frames.shape[1], frames.shape[2]), longest))
    return resize(_whole_values(scaled), tile, tile)


def split_tiles(frames: Frames, tile: int, longest: int, resize: Resize) -> tuple[Tiles, int, int]:
    """SmolVLM: tiles of the enlarged image, then the whole; with rows and columns, 0 where there is one tile only."""
    height, width = longest_side_size((frames.shape[1], frames.shape[2]), longest)
    scaled = _whole_values(resize(frames, height, width))
    if width >= height:
        columns = math.ceil(width / tile)
        rows = math.ceil(int(columns * tile / (width / height)) / tile)
    else:
        rows = math.ceil(height / tile)
        columns = math.ceil(int(rows * tile * (width / height)) / tile)
    stretched = resize(scaled, rows * tile, columns * tile)
    if rows == columns == 1:
        return stretched, 0, 0
    whole = resize(_whole_values(stretched), tile, tile)
    return np.concatenate([cut(stretched[0], tile, tile), whole]), rows, columns


def _whole_values(values: Tiles) -> Frames:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
