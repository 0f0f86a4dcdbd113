"""Scans in order that drop what resembles something kept: their result, and decisions among true matches."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Pairs = tuple[Integers, Integers, npt.NDArray[np.float64]]
"""Query, partner before it, and similarity, flat."""


@dataclass(frozen=True)
class GreedyScan:
    """Result of a greedy scan: who stays, and for the others which kept item was too similar.

    Args:
        kept: indices of the items that stay, increasing, int64.
        nearest: for each item the index of the most similar kept item before it if that made it go, else -1, int64.
        similarity: the similarity to ``nearest``, NaN for kept items, float64.
    """

    kept: Integers
    nearest: Integers
    similarity: npt.NDArray[np.float64]


def joined(*pairs: Pairs) -> Pairs:
    """Return several sets of pairs as one; none are no pairs."""
    empty = np.empty(0, dtype=np.int64)
    query, other, score = (np.concatenate(parts) for parts in zip((empty, empty, np.empty(0)), *pairs, strict=True))
    return query, other, score


def best_partners(*pairs: Pairs) -> Pairs:
    """Return for each query its most similar partner, the first of equals."""
    query, other, score = joined(*pairs)
    order = np.lexsort((other, -score, query))
    query, other, score = query[order], other[order], score[order]
    first = np.ones(len(query), dtype=bool)
    first[1:] = query[1:] != query[:-1]
    return query[first], other[first], score[first]


def resolve_in_order(query: Integers, other: Integers, score: npt.NDArray[np.float64]) -> Pairs:
    """Return those pairs whose partner is kept, where being the query of such a pair means being dropped.

    Only among prompts of one chunk does a decision depend on another: go through the few true matches in the order
    of the scan. All pairs of a partner come before it is needed, because it stands before its queries.
    """
    order = np.lexsort((other, query))
    query, other, score = query[order], other[order], score[order]
    valid = np.zeros(len(query), dtype=bool)
    dropped: set[int] = set()
    for position, (later, earlier) in enumerate(zip(query.tolist(), other.tolist(), strict=True)):
        if earlier not in dropped:
            valid[position] = True
            dropped.add(later)
    return query[valid], other[valid], score[valid]


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
