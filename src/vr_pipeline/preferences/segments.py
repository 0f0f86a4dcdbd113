"""Preferences by segment: which clip of a pair is better in each part.

``a,b,tie,a`` labels four equal parts of both clips, ``a:3,tie:1,b:2`` parts with these relative lengths. ``a``: the
first clip is better (in a table of winners, the winner), ``b``: the second, ``tie``: neither, or unknown. An empty cell
has no segments.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import accumulate, groupby, pairwise
from typing import Any, Final, NamedTuple

import pandas as pd

from vr_pipeline.preferences.rows import Source
from vr_pipeline.storage.values import as_text, is_missing

COLUMN: Final = "segments"
"""Column of the cells, in files and in tables."""
_LABELS: Final = {"a": 1, "b": -1, "tie": 0}
_WORDS: Final = {label: word for word, label in _LABELS.items()}


class Segment(NamedTuple):
    """A part of two clips.

    Attributes:
        label: 1 if the first clip is better, -1 if the second is, 0 for neither or unknown.
        length: in any unit, the same for all segments of a pair.
    """

    label: int
    length: Fraction = Fraction(1)


def read_segments(text: str) -> tuple[Segment, ...]:
    """Return the segments of a cell in order; none for an empty cell.

    Raises:
        ValueError: a label is not a, b or tie, or a length is not a number above 0.
    """
    return tuple(_segment(part) for part in text.split(",")) if text.strip() else ()


def _segment(part: str) -> Segment:
    word, colon, length = (piece.strip() for piece in part.partition(":"))
    if word.casefold() not in _LABELS:
        raise ValueError(f"unknown label '{word}' of a segment")
    try:
        size = Fraction(length) if colon else Fraction(1)
    except (ValueError, ZeroDivisionError):
        size = Fraction(0)
    if size <= 0:
        raise ValueError(f"the length '{length}' of a segment is not a number above 0")
    return Segment(_LABELS[word.casefold()], size)


def segments_text(segments: Iterable[Segment]) -> str:
    """Return segments as a cell, the inverse of :func:`read_segments`."""
    parts = ((_WORDS[segment.label], segment.length) for segment in segments)
    return ",".join(word if length == 1 else f"{word}:{length}" for word, length in parts)


def segments_in(source: Source) -> list[dict[str, str]]:
    """Return the checked cells of every row, if the file has the column; lists are joined with commas."""
    if not source.has(COLUMN):
        return [{} for _ in source.good]
    source.further_columns.append(COLUMN)
    return [{COLUMN: _checked(source, value, i)} for i, value in enumerate(source.column(COLUMN))]


def _checked(source: Source, value: Any, position: int) -> str:
    try:
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, list | tuple):
            return segments_text(read_segments(",".join(map(as_text, value))))
        return "" if is_missing(value) else segments_text(read_segments(as_text(value)))
    except ValueError as error:
        remedy = "label parts of the clips with a, b or tie, as in a,b,tie,a or a:3,b:1.5"
        source.reject(position, COLUMN, str(error), remedy)
        return ""


def combined(votes: Sequence[Sequence[Segment]]) -> tuple[Segment, ...]:
    """Return the majority label of every part of a pair, with the cuts of all annotators; ties without majority.

    Args:
        votes: segments by annotator, for the same order of clips; empty ones are ignored.
    """
    known = [list(segments) for segments in votes if segments]
    if len(known) < 2:
        return tuple(known[0]) if known else ()
    ends = [_ends(segments) for segments in known]
    cuts = sorted({Fraction(0)}.union(*ends))
    parts = []
    for start, end in pairwise(cuts):
        labels = [segments[_at(of, start)].label for segments, of in zip(known, ends, strict=True)]
        counts = {label: labels.count(label) for label in _WORDS}
        best = [label for label, count in counts.items() if count == max(counts.values())]
        parts.append(Segment(best[0] if len(best) == 1 else 0, end - start))
    return tuple(parts)


def segments_by_pair(preferences: pd.DataFrame, winners: pd.Series) -> pd.Series:
    """Return the cell of every pair over all annotators, with ``a`` for the winner.

    Args:
        preferences: table of :class:`vr_pipeline.schemas.HumanPreferences` with segments; pairs can be in either order.
        winners: video_id by pair_id.
    """
    votes: dict[str, list[tuple[Segment, ...]]] = {}
    first = preferences["video_id_a"] == preferences["pair_id"].map(winners)
    for pair, text, straight in zip(preferences["pair_id"], preferences[COLUMN], first, strict=True):
        segments = read_segments("" if is_missing(text) else text)
        turned = tuple(segment._replace(label=-segment.label) for segment in segments)
        votes.setdefault(pair, []).append(segments if straight else turned)
    return pd.Series([segments_text(combined(votes[pair])) for pair in winners.index], winners.index, dtype=object)


def of_shown_frames(segments: Sequence[Segment], clips: Sequence[tuple[Sequence[int], int]]) -> tuple[Segment, ...]:
    """Return the segments of the shown frames of two clips, with numbers of frames as lengths.

    A shown frame in different segments of both clips, due to different lengths or rates, gets label 0.

    Args:
        segments: parts of the whole clips.
        clips: indices of the shown frames, and number of frames, of each clip.
    """
    if not segments:
        return ()
    ends = _ends(segments)
    places = [[_at(ends, Fraction(2 * frame + 1, 2 * count)) for frame in shown] for shown, count in clips]
    common = [found[0] if len(set(found)) == 1 else None for found in zip(*places, strict=True)]
    return tuple(
        Segment(0 if place is None else segments[place].label, Fraction(len(list(frames))))
        for place, frames in groupby(common)
    )


def segments_of_frames(segments: Sequence[Segment], latent_frames: int, frames: int, lone: int = 0) -> list[int]:
    """Return the segment number of every latent frame, from 1, negative if the second clip is better, 0 without label.

    A latent frame belongs to the segment of its middle.

    Args:
        segments: parts of the clip; may be empty.
        latent_frames: number of latent frames.
        frames: number of the clip's frames.
        lone: first frames that the autoencoder encodes alone; the others are in equal groups.
    """
    if not segments:
        return [0] * latent_frames
    ends = _ends(segments)
    group = Fraction(frames - lone, max(latent_frames - lone, 1))
    starts = [*map(Fraction, range(lone)), *(lone + group * place for place in range(latent_frames - lone))]
    sizes = [Fraction(1)] * lone + [group] * (latent_frames - lone)
    found = [_at(ends, (start + size / 2) / frames) for start, size in zip(starts, sizes, strict=True)]
    return [segments[place].label * (place + 1) for place in found]


def _ends(segments: Sequence[Segment]) -> list[Fraction]:
    """Return the ends of segments as shares of the clip; the last is 1."""
    sums = list(accumulate(segment.length for segment in segments))
    return [end / sums[-1] for end in sums]


def _at(ends: Sequence[Fraction], share: Fraction) -> int:
    return next(place for place, end in enumerate(ends) if share < end)
