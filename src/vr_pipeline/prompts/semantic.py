"""Exact removal of near-duplicates by the cosine of their embeddings, without a quadratic matrix in memory.

Embeddings are compared in tiles. After rotation to principal axes, the first axes and the length of the remainder give
an upper bound of every cosine (Cauchy-Schwarz), which is a product of shorter vectors. Only pairs whose bound passes
the threshold are computed in full, in double precision, so that results do not depend on the tiles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

from vr_pipeline.prompts.greedy_scan import (
    GreedyScan,
    Pairs,
    available_cores,
    best_partners,
    joined,
    resolve_in_order,
)

Vectors = npt.NDArray[np.float32]

SLACK = 1e-4
"""Tolerance of the bound; products of unit vectors of 1024 axes in single precision have an error below 7e-5."""
_PAIRS_AT_A_TIME = 65_536
_FEW_ITEMS = 2048
"""Up to this number of items, comparing all axes costs less than choosing axes."""
_FULL_COST = 128
"""Cost per axis of computing a pair in full, relative to a tile's product: single pairs are gathered from memory."""
_ROTATED_AT_A_TIME = 65_536


def greedy_cosine_scan(
    embeddings: Vectors,
    threshold: float,
    *,
    groups: Sequence[str] | None = None,
    block_size: int = 1024,
) -> GreedyScan:
    """Scan in order and drop every item whose cosine with an earlier kept item exceeds the threshold.

    Args:
        embeddings: unit vectors [items, axes]; a row of zeros (not embedded) is not similar to any.
        threshold: cosine above which an item is dropped, in (-1, 1]; 1 keeps all.
        groups: labels of the items; then only pairs with different labels count.
        block_size: number of items per side of a tile.

    Raises:
        ValueError: rows are not unit vectors, or the threshold is out of range.
    """
    if not -1 < threshold <= 1:
        raise ValueError(f"threshold must be in (-1, 1], got {threshold}")
    count = len(embeddings)
    if threshold == 1 or count < 2:
        return GreedyScan(np.arange(count, dtype=np.int64), np.full(count, -1, dtype=np.int64), np.full(count, np.nan))
    from threadpoolctl import threadpool_limits

    norms = np.linalg.norm(embeddings, axis=1)
    if not np.all((np.abs(norms - 1) < 1e-3) | (norms == 0)):
        raise ValueError("embeddings must have unit length")
    # One thread per tile; threads of BLAS would split each small product and wait for each other.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(available_cores()) as pool:
        return _scan(embeddings, threshold, norms, groups, block_size, pool.map)


def _scan(
    embeddings: Vectors,
    threshold: float,
    norms: npt.NDArray[np.float32],
    groups: Sequence[str] | None,
    block_size: int,
    run: Callable[..., Iterator[Pairs]],
) -> GreedyScan:
    count = len(embeddings)
    nearest = np.full(count, -1, dtype=np.int64)
    similarity = np.full(count, np.nan)
    labels = np.unique(np.asarray(groups), return_inverse=True)[1] if groups is not None else None
    memory = _TileMemory()
    bound = upper_bound_vectors(embeddings, threshold) if count > _FEW_ITEMS else embeddings
    kept = np.empty(count, dtype=np.int64)
    kept_count = 0

    def pairs_above(rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Pairs:
        """Return all pairs above the threshold between rows and earlier columns."""
        found: list[Pairs] = []
        for part_rows, part_columns in _comparable(rows, columns, labels):
            place = memory.above(bound[part_rows], bound[part_columns], threshold - SLACK)
            row, column = part_rows[place // len(part_columns)], part_columns[place % len(part_columns)]
            usable = (column < row) & (norms[row] > 0) & (norms[column] > 0)
            row, column = row[usable], column[usable]
            for start in range(0, len(row), _PAIRS_AT_A_TIME):
                part = slice(start, start + _PAIRS_AT_A_TIME)
                cosine = _cosines(embeddings, row[part], column[part])
                above = cosine > threshold
                found.append((row[part][above], column[part][above], cosine[above]))
        return joined(*found)

    for start in range(0, count, block_size):
        block = np.arange(start, min(start + block_size, count), dtype=np.int64)
        tiles = [kept[left : min(left + block_size, kept_count)] for left in range(0, kept_count, block_size)]
        before = joined(*run(partial(pairs_above, block), tiles))
        survivors = np.setdiff1d(block, before[0])
        rows, partners, cosines = best_partners(before, resolve_in_order(*pairs_above(block, survivors)))
        nearest[rows], similarity[rows] = partners, cosines
        survivors = survivors[nearest[survivors] < 0]
        kept[kept_count : kept_count + len(survivors)] = survivors
        kept_count += len(survivors)
    return GreedyScan(kept[:kept_count].copy(), nearest, similarity)


class _TileMemory(threading.local):
    """Memory of a thread for one tile, because asking the system for it takes as long as a part of the product."""

    def __init__(self) -> None:
        self._products, self._above = np.empty(0, dtype=np.float32), np.empty(0, dtype=np.bool_)

    def above(self, rows: Vectors, columns: Vectors, limit: float) -> npt.NDArray[np.intp]:
        """Return the flat positions of products of rows and columns above a limit."""
        size = len(rows) * len(columns)
        if size > len(self._products):
            self._products, self._above = np.empty(size, dtype=np.float32), np.empty(size, dtype=np.bool_)
        products, above = self._products[:size], self._above[:size]
        np.matmul(rows, columns.T, out=products.reshape(len(rows), len(columns)))
        np.greater(products, limit, out=above)
        return np.flatnonzero(above)


def _comparable(
    rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64], labels: npt.NDArray[np.int64] | None
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Return rows and columns to compare: with labels, rows of each label with columns of the others."""
    if not len(columns):
        return []
    if labels is None:
        return [(rows, columns)]
    parts = [(rows[labels[rows] == label], columns[labels[columns] != label]) for label in np.unique(labels[rows])]
    return [(some_rows, some_columns) for some_rows, some_columns in parts if len(some_columns)]


def upper_bound_vectors(embeddings: Vectors, threshold: float) -> Vectors:
    """Return vectors whose products are at least the cosines of the embeddings, with fewer axes if that is cheaper.

    The number of axes has the lowest predicted cost on a fixed sample of pairs.
    """
    count, axes = embeddings.shape
    if axes <= 32:
        return embeddings
    random = np.random.default_rng(0)
    sample = embeddings[random.integers(count, size=4096)].astype(np.float64)
    _, directions = np.linalg.eigh(sample.T @ sample)
    directions = directions[:, ::-1]
    kept = _cheapest_axes(sample @ directions, threshold, random)
    if kept == axes:
        return embeddings
    bound = np.empty((count, kept + 1), dtype=np.float32)
    # A rotated copy of everything would need as much memory as the embeddings.
    turn = directions.astype(np.float32)
    for start in range(0, count, _ROTATED_AT_A_TIME):
        part = slice(start, start + _ROTATED_AT_A_TIME)
        rotated = embeddings[part] @ turn
        bound[part, :kept], bound[part, kept] = rotated[:, :kept], np.linalg.norm(rotated[:, kept:], axis=1)
    return bound


def _cheapest_axes(rotated: npt.NDArray[np.float64], threshold: float, random: np.random.Generator) -> int:
    """Return the number of axes, of principal ones in order, with the lowest predicted cost of a pair."""
    count, axes = rotated.shape
    first, second = random.integers(count, size=(2, _PAIRS_AT_A_TIME))
    product, best_cost, best_axes = np.zeros(len(first)), float(axes), axes
    for kept in range(16, axes, 16):
        block = rotated[:, kept - 16 : kept]
        product += np.einsum("ij,ij->i", block[first], block[second])
        remainder = np.linalg.norm(rotated[:, kept:], axis=1)
        passing = float(np.mean(product + remainder[first] * remainder[second] > threshold - SLACK))
        cost = kept + passing * axes * _FULL_COST
        if cost < best_cost:
            best_cost, best_axes = cost, kept
    return best_axes


def is_seen(embeddings: Vectors) -> npt.NDArray[np.bool_]:
    """Return whether rows have a vector, bool [rows]; rows of zeros are texts that the embedder does not cover."""
    return np.asarray(embeddings.any(axis=1), dtype=np.bool_)


def nearest_cosines(queries: npt.NDArray[np.int64], embeddings: Vectors) -> npt.NDArray[np.float64]:
    """Return each queried row's cosine with the most similar other row, float64 [queries]; NaN without another."""
    best = np.full(len(queries), np.nan)
    if len(embeddings) < 2:
        return best
    for start in range(0, len(queries), 256):
        rows = queries[start : start + 256]
        products = embeddings[rows] @ embeddings.T
        products[np.arange(len(rows)), rows] = -np.inf
        best[start : start + 256] = products.max(axis=1)
    return np.clip(best, -1, 1)


def nearest_among(
    embeddings: Vectors, queries: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the chosen row with the largest cosine for each queried row, and that cosine."""
    nearest = np.zeros(len(queries), dtype=np.int64)
    for start in range(0, len(queries), 1024):
        products = embeddings[queries[start : start + 1024]] @ embeddings[chosen].T
        nearest[start : start + 1024] = chosen[products.argmax(axis=1)]
    similarity = np.einsum("ij,ij->i", embeddings[queries], embeddings[nearest], dtype=np.float64)
    return nearest, np.clip(similarity, -1, 1)


def _cosines(
    embeddings: Vectors, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    a, b = embeddings[first].astype(np.float64), embeddings[second].astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", a, a) * np.einsum("ij,ij->i", b, b))
    return np.clip(np.einsum("ij,ij->i", a, b) / lengths, -1.0, 1.0)
