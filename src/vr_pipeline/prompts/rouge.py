"""Exact removal of near-duplicates by Rouge-L, fast enough for a million prompts.

Rouge-L (Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, section 3.2) compares two texts by the
longest common subsequence (LCS) of their tokens. Tokens and results are those of the ``rouge-score`` package without
stemming, bit by bit, so that thresholds decide the same. :mod:`vr_pipeline.prompts.rouge_join` avoids comparing all
pairs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from vr_pipeline.prompts.greedy_scan import GreedyScan, available_cores, resolve_in_order
from vr_pipeline.prompts.rouge_join import Join, SegmentedIndex, as_strings

_TOKEN = re.compile(r"[a-z0-9]+")

FIRST_CHUNK = 256
LARGEST_CHUNK = 8192

Tokens = Callable[[str], Sequence[str]]


def tokenize(text: str) -> list[str]:
    """Return lower-case runs of a-z and 0-9."""
    return _TOKEN.findall(text.lower())


def _f1(lcs: int, length_a: int, length_b: int) -> float:
    """Return the F1 of an LCS, in the order of operations of the rouge-score package; symmetric in the lengths."""
    if not lcs:
        return 0.0
    precision, recall = lcs / length_a, lcs / length_b
    return 2 * precision * recall / (precision + recall)


def rouge_l_f1(a: str, b: str) -> float:
    """Return the Rouge-L F1 of two texts, in [0, 1]; 0 if either has no tokens."""
    from rapidfuzz.distance import LCSseq

    tokens_a, tokens_b = tokenize(a), tokenize(b)
    return _f1(LCSseq.similarity(tokens_a, tokens_b), len(tokens_a), len(tokens_b))


def greedy_rouge_filter(prompts: Sequence[str], threshold: float = 0.7) -> list[int]:
    """Return indices of the prompts that a scan in order keeps.

    A prompt is dropped if its Rouge-L F1 with an earlier kept prompt exceeds ``threshold``. Prompts without tokens a-z
    or 0-9 have an F1 of 0 with all others and are kept.

    Raises:
        ValueError: the threshold is not in (0, 1].
    """
    kept: list[int] = greedy_rouge_scan(prompts, threshold).kept.tolist()
    return kept


def greedy_rouge_scan(
    prompts: Sequence[str],
    threshold: float = 0.7,
    *,
    groups: Sequence[str] | None = None,
    workers: int | None = None,
    tokens: Tokens = tokenize,
) -> GreedyScan:
    """Scan as :func:`greedy_rouge_filter`, with the nearest kept prompt of every dropped one.

    Among equally similar kept prompts, the first is the nearest. Repetitions of a token sequence have the result of its
    first appearance.

    Args:
        prompts: texts, in the order of the scan.
        threshold: F1 above which a prompt is dropped, in (0, 1].
        groups: labels of the prompts; then only pairs with different labels count.
        workers: number of threads; None for all available cores.
        tokens: returns the tokens of a text; by default as rouge-score, only a-z and 0-9.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be in (0, 1], got {threshold}")
    count = len(prompts)
    nearest = np.full(count, -1, dtype=np.int64)
    similarity = np.full(count, np.nan)
    if threshold == 1 or count < 2:
        return GreedyScan(np.arange(count, dtype=np.int64), nearest, similarity)
    # numpy and rapidfuzz release the interpreter's lock.
    with ThreadPoolExecutor(workers or available_cores()) as pool:
        join = Join([tokens(prompt) for prompt in prompts], threshold, groups, pool.map)
        _scan(join)
    first = join.first_appearance
    where = np.flatnonzero(join.representative >= 0)
    unique = join.representative[where]
    unique_dropped = join.nearest[unique] >= 0
    # A repetition of a kept sequence is dropped, unless groups are given: then it is of the same group.
    stays = (first[unique] == where) | (groups is not None)
    nearest[where] = np.where(unique_dropped, first[join.nearest[unique]], np.where(stays, -1, first[unique]))
    similarity[where] = np.where(unique_dropped, join.similarity[unique], np.where(stays, np.nan, 1.0))
    return GreedyScan(np.flatnonzero(nearest < 0).astype(np.int64), nearest, similarity)


def _scan(join: Join) -> None:
    """Decide on every distinct token sequence, chunk by chunk in the order of the scan."""
    kept_index = SegmentedIndex()
    for start, stop in _chunks(len(join)):
        chunk = np.arange(start, stop, dtype=np.int64)
        before = join.matches(chunk, kept_index.segments)
        survivors = np.setdiff1d(chunk, before[0])
        within = join.matches(chunk, [join.segment(survivors)])
        join.record_best(before, resolve_in_order(*within))
        kept_index.add(join, survivors[join.nearest[survivors] < 0])


def nearest_rouge_l(
    queries: npt.NDArray[np.int64], prompts: Sequence[str], *, tokens: Tokens = tokenize
) -> npt.NDArray[np.float64]:
    """Return the Rouge-L F1 of each query with the most similar other prompt, float64 [queries]; NaN if there is none.

    Compares with all prompts, so it is for a sample of queries.
    """
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    best = np.full(len(queries), np.nan)
    if len(prompts) < 2:
        return best
    vocabulary: dict[str, int] = {}
    cut = [tuple([vocabulary.setdefault(token, len(vocabulary)) for token in tokens(text)]) for text in prompts]
    sequences = as_strings(cut, len(vocabulary))
    lengths = np.maximum(np.fromiter(map(len, cut), dtype=np.int64, count=len(cut)), 1)
    for start in range(0, len(queries), 64):
        rows = queries[start : start + 64]
        lcs = cdist(
            [sequences[row] for row in rows.tolist()],
            sequences,
            scorer=LCSseq.similarity,
            dtype=np.int32,
            workers=available_cores(),
        )
        f1 = 2 * lcs / (lengths[rows][:, None] + lengths[None, :])
        f1[np.arange(len(rows)), rows] = -1
        best[start : start + 64] = f1.max(axis=1)
    return best


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    """Yield chunks of growing size, so that many near-duplicates at the start meet few kept prompts."""
    start, size = 0, FIRST_CHUNK
    while start < count:
        yield start, min(start + size, count)
        start, size = start + size, min(size * 2, LARGEST_CHUNK)
