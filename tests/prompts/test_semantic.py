"""The tiled cosine scan against the plain one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.prompts import semantic
from vr_pipeline.prompts.semantic import (
    greedy_cosine_scan,
    nearest_among,
    nearest_cosines,
    upper_bound_vectors,
)


@pytest.fixture(scope="module", autouse=True)
def bounds_also_for_few_items():
    """Few items are compared without bounds; here they are to be tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic, "_FEW_ITEMS", 0)
        yield


def random_units(seed: int, count: int, axes: int) -> np.ndarray:
    """Unit vectors in loose clusters, so that every threshold has pairs on both sides."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(max(count // 4, 1), axes))
    vectors = centres[random.integers(len(centres), size=count)] + random.uniform(0.1, 1.5) * random.normal(
        size=(count, axes)
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plain_scan(vectors: np.ndarray, threshold: float, groups: Sequence[str] | None = None) -> list[int]:
    exact = vectors.astype(np.float64)
    kept: list[int] = []
    for index in range(len(exact)):
        others = [other for other in kept if groups is None or groups[other] != groups[index]]
        cosines = [
            exact[other] @ exact[index] / np.linalg.norm(exact[other]) / np.linalg.norm(exact[index])
            for other in others
        ]
        if not any(cosine > threshold for cosine in cosines):
            kept.append(index)
    return kept


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 120), st.sampled_from([3, 40, 100]), st.floats(-0.5, 0.99))
def test_equals_plain_scan_for_any_tile(seed: int, count: int, axes: int, threshold: float) -> None:
    vectors = random_units(seed, count, axes) if count else np.empty((0, axes), dtype=np.float32)
    expected = plain_scan(vectors, threshold)
    for block_size in (3, 50, 2048):
        assert greedy_cosine_scan(vectors, threshold, block_size=block_size).kept.tolist() == expected


@pytest.mark.parametrize("block_size", [7, 64])
def test_a_cosine_just_above_the_threshold_is_above_it(block_size: int) -> None:
    # Bounds are computed in single precision; what they let through is decided in double.
    vectors = random_units(5, 40, 100)
    exact = vectors.astype(np.float64)
    for first, second in ((0, 1), (3, 30), (20, 39)):
        pair = vectors[[first, second]]
        cosine = exact[first] @ exact[second] / np.linalg.norm(exact[first]) / np.linalg.norm(exact[second])
        assert greedy_cosine_scan(pair, cosine - 1e-9).kept.tolist() == [0]
        assert greedy_cosine_scan(pair, cosine + 1e-9).kept.tolist() == [0, 1]
        for threshold in (cosine - 1e-9, cosine + 1e-9):
            kept = greedy_cosine_scan(vectors, threshold, block_size=block_size).kept.tolist()
            assert kept == plain_scan(vectors, threshold)


def test_few_items_need_no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = random_units(3, 200, 100)
    with_bounds = greedy_cosine_scan(vectors, 0.25)
    monkeypatch.setattr(semantic, "_FEW_ITEMS", 200)
    monkeypatch.setattr(semantic, "upper_bound_vectors", None)
    without = greedy_cosine_scan(vectors, 0.25)
    assert 0 < len(without.kept) < 200
    assert without.kept.tolist() == with_bounds.kept.tolist()
    assert without.nearest.tolist() == with_bounds.nearest.tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 80), st.floats(0.0, 0.99), st.integers(1, 40))
def test_groups_compare_only_across(seed: int, count: int, threshold: float, block_size: int) -> None:
    vectors = random_units(seed, count, 40)
    groups = np.random.default_rng(seed).choice(["train", "test", "validation"], size=count).tolist()
    scan = greedy_cosine_scan(vectors, threshold, groups=groups, block_size=block_size)
    assert scan.kept.tolist() == plain_scan(vectors, threshold, groups)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.95), st.integers(1, 60))
def test_every_drop_is_explained_by_the_best_kept_item(seed: int, threshold: float, block_size: int) -> None:
    vectors = random_units(seed, 60, 40)
    scan = greedy_cosine_scan(vectors, threshold, block_size=block_size)
    exact = vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    kept = set(scan.kept.tolist())
    for index in range(60):
        if index in kept:
            assert scan.nearest[index] == -1
            continue
        earlier = [other for other in kept if other < index]
        best = max(float(exact[other] @ exact[index]) for other in earlier)
        assert int(scan.nearest[index]) in earlier
        assert scan.similarity[index] == pytest.approx(best, abs=1e-9)
        assert scan.similarity[index] > threshold


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.6, 0.9]))
def test_bound_is_never_below_the_cosine(seed: int, threshold: float) -> None:
    vectors = random_units(seed, 90, 120)
    bound = upper_bound_vectors(vectors, threshold)
    assert np.all(bound @ bound.T >= vectors @ vectors.T - 1e-5)


def test_bound_has_fewer_axes_where_that_pays() -> None:
    random = np.random.default_rng(0)
    spread = random.normal(size=(2000, 200)) * np.geomspace(1, 0.01, 200)
    vectors = (spread / np.linalg.norm(spread, axis=1, keepdims=True)).astype(np.float32)
    assert upper_bound_vectors(vectors, 0.9).shape[1] < 100


def test_rows_without_direction_are_similar_to_nothing() -> None:
    vectors = np.array([[1, 0], [0, 0], [0, 0], [1, 0]], dtype=np.float32)
    assert greedy_cosine_scan(vectors, 0.5).kept.tolist() == [0, 1, 2]
    assert greedy_cosine_scan(vectors, -0.5).kept.tolist() == [0, 1, 2]


def test_threshold_one_keeps_everything() -> None:
    vectors = np.ones((3, 1), dtype=np.float32)
    assert greedy_cosine_scan(vectors, 1.0).kept.tolist() == [0, 1, 2]


def test_rejects_vectors_that_are_not_unit_and_bad_thresholds() -> None:
    with pytest.raises(ValueError, match="unit"):
        greedy_cosine_scan(np.full((2, 2), 2, dtype=np.float32), 0.5)
    with pytest.raises(ValueError, match="threshold"):
        greedy_cosine_scan(np.ones((2, 1), dtype=np.float32), 1.5)


def test_nearest_functions() -> None:
    vectors = random_units(1, 50, 10)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    queries = np.array([3, 7, 20])
    np.testing.assert_allclose(nearest_cosines(queries, vectors), cosines[queries].max(axis=1), atol=1e-6)
    chosen = np.array([1, 5, 40])
    nearest, similarity = nearest_among(vectors, queries, chosen)
    np.testing.assert_array_equal(nearest, chosen[cosines[np.ix_(queries, chosen)].argmax(axis=1)])
    np.testing.assert_allclose(similarity, cosines[queries, nearest], atol=1e-6)
    assert np.isnan(nearest_cosines(np.array([0]), vectors[:1])).all()
