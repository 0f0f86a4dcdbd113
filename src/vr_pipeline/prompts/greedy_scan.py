"""Greedy scans, which drop items similar to earlier kept ones: result, and decisions among true matches."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
Pairs = tuple[Integers, Integers, npt.NDArray[np.float64]]
"""Query, earlier partner and similarity, as flat arrays."""


@dataclass(frozen=True)
class GreedyScan:
    """Result of a greedy scan.

    Args:
        kept: indices of the kept items, increasing, int64.
        nearest: per dropped item the index of the most similar earlier kept item, else -1, int64.
        similarity: the similarity to ``nearest``, NaN for kept items, float64.
    """

    kept: Integers
    nearest: Integers
    similarity: npt.NDArray[np.float64]


def joined(*pairs: Pairs) -> Pairs:
    """Concatenate any number of sets of pairs."""
    empty = np.empty(0, dtype=np.int64)
    query, other, score = (np.concatenate(parts) for parts in zip((empty, empty, np.empty(0)), *pairs, strict=True))
    return query, other, score


def best_partners(*pairs: Pairs) -> Pairs:
    """Return the most similar partner of each query; of equals, the first."""
    query, other, score = joined(*pairs)
    order = np.lexsort((other, -score, query))
    query, other, score = query[order], other[order], score[order]
    first = np.ones(len(query), dtype=bool)
    first[1:] = query[1:] != query[:-1]
    return query[first], other[first], score[first]


def resolve_in_order(query: Integers, other: Integers, score: npt.NDArray[np.float64]) -> Pairs:
    """Return the pairs whose partner is kept; the query of such a pair is dropped.

    Decisions depend on each other only within a chunk, so the few true matches are decided in the order of the scan.
    A partner comes before its queries, so it is already decided.
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
    """Return the number of cores that this process can use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
