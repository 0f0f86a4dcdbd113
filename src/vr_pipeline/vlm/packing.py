"""Many questions behind one clip in one sequence: which token may see which, and where each one stands.

A row of a batch is: the clip's prefix (padded to the longest of the batch), then the segments, one after the other. A
segment sees the prefix and itself, never another segment, and its positions start again right after the prefix. So
every segment computes exactly what it would compute alone behind the prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """Tokens that follow a prefix, and after which of them the next token's distribution is read.

    A question is read after its last token. A target text, as in training on captions, is read after several.
    """

    token_ids: tuple[int, ...]
    read_at: tuple[int, ...]


@dataclass(frozen=True)
class PackedSegments:
    """Segments of a batch as arrays.

    Attributes:
        token_ids: [batch, length], 0 where padded.
        offsets: position of each token within its own segment, [batch, length].
        segments: number of the segment a token belongs to, -1 where padded, [batch, length].
        read_rows, read_columns: places that are read, in the order batch, segment, ``read_at``.
    """

    token_ids: IntArray
    offsets: IntArray
    segments: IntArray
    read_rows: IntArray
    read_columns: IntArray


def pack(batch: Sequence[Sequence[Segment]]) -> PackedSegments:
    """Lay out the segments of each row one after the other."""
    length = max(sum(len(segment.token_ids) for segment in row) for row in batch)
    token_ids = np.zeros((len(batch), length), np.int64)
    offsets = np.zeros((len(batch), length), np.int64)
    numbers = np.full((len(batch), length), -1, np.int64)
    rows: list[int] = []
    columns: list[int] = []
    for row, segments in enumerate(batch):
        start = 0
        for number, segment in enumerate(segments):
            end = start + len(segment.token_ids)
            token_ids[row, start:end] = segment.token_ids
            offsets[row, start:end] = np.arange(end - start)
            numbers[row, start:end] = number
            rows.extend([row] * len(segment.read_at))
            columns.extend(start + place for place in segment.read_at)
            start = end
    return PackedSegments(token_ids, offsets, numbers, np.array(rows), np.array(columns))


def segment_mask(prefix_lengths: IntArray, prefix_width: int, segments: IntArray) -> NDArray[np.bool_]:
    """Return who sees whom for tokens of segments: [batch, 1, length, prefix_width + length], true where seen.

    Padding sees the prefix, so that no row of the attention is empty; nothing sees padding.
    """
    batch, length = segments.shape
    to_prefix = np.broadcast_to(
        (np.arange(prefix_width)[None, :] < prefix_lengths[:, None])[:, None, :], (batch, length, prefix_width)
    )
    same = (segments[:, :, None] == segments[:, None, :]) & (segments >= 0)[:, None, :]
    earlier = np.tril(np.ones((length, length), bool))
    return np.concatenate([to_prefix, same & earlier], axis=2)[:, None]


def prefix_mask(prefix_lengths: IntArray, prefix_width: int) -> NDArray[np.bool_]:
    """Return the causal mask of padded prefixes: [batch, 1, prefix_width, prefix_width], true where seen."""
    causal = np.tril(np.ones((prefix_width, prefix_width), bool))[None]
    real = (np.arange(prefix_width)[None, :] < prefix_lengths[:, None])[:, None, :]
    return (causal & real)[:, None]


def packed_mask(prefix_lengths: IntArray, prefix_width: int, segments: IntArray) -> NDArray[np.bool_]:
    """Return the mask of prefix and segments together: [batch, 1, width + length, width + length], true where seen."""
    length = segments.shape[1]
    top = prefix_mask(prefix_lengths, prefix_width)
    top = np.concatenate([top, np.zeros((*top.shape[:3], length), bool)], axis=3)
    return np.concatenate([top, segment_mask(prefix_lengths, prefix_width, segments)], axis=2)


def seeing_all(mask: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Return a mask [batch, 1, tokens, seen] with so many more tokens in front that all see."""
    return np.concatenate([np.ones((*mask.shape[:3], count), bool), mask], axis=3) if count else mask
