"""Choice of diverse prompts."""

from __future__ import annotations

import numpy as np
import pytest

from vr_pipeline.prompts.config import DiversityParameters
from vr_pipeline.prompts.diversity import choose_diverse, cluster_balanced, k_centre


def clusters(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Unit vectors in tight, well separated clusters of these sizes."""
    random = np.random.default_rng(seed)
    centres = np.repeat(np.eye(len(sizes), 12), sizes, axis=0)
    vectors = centres + 0.02 * random.normal(size=centres.shape)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_k_centre_meets_every_cluster_before_it_repeats_one() -> None:
    vectors = clusters([50, 3, 20, 1])
    labels = np.repeat(np.arange(4), [50, 3, 20, 1])
    assert set(labels[k_centre(vectors, 4)]) == {0, 1, 2, 3}
    chosen = k_centre(vectors, 30)
    assert len(set(chosen.tolist())) == 30


def test_k_centre_is_within_twice_the_best_radius() -> None:
    vectors = clusters([10, 10, 10], seed=3)
    chosen = k_centre(vectors, 3)
    distance = np.arccos(np.clip(vectors @ vectors[chosen].T, -1, 1)).min(axis=1)
    assert distance.max() < 2 * 0.2


def test_k_centre_takes_no_row_twice_where_rows_are_equal() -> None:
    vectors = np.repeat(np.eye(2, 3, dtype=np.float32), 3, axis=0)
    assert sorted(k_centre(vectors, 6)) == [0, 1, 2, 3, 4, 5]


def test_clusters_are_balanced() -> None:
    vectors = clusters([60, 30, 30])
    labels = np.repeat(np.arange(3), [60, 30, 30])
    counts = np.bincount(labels[cluster_balanced(vectors, 30, 3, seed=0)])
    assert counts.tolist() == [10, 10, 10]
    # Where one is too small for its share, the others give more.
    few = clusters([60, 2, 30])
    counts = np.bincount(np.repeat(np.arange(3), [60, 2, 30])[cluster_balanced(few, 30, 3, seed=0)])
    assert counts.tolist() == [14, 2, 14]


def test_the_middle_of_a_cluster_is_taken_first() -> None:
    centres = 5 * np.eye(3, 8, dtype=np.float32)
    around = np.concatenate([np.eye(8), -np.eye(8)]).astype(np.float32)
    vectors = np.concatenate([np.vstack([centre + around, centre]) for centre in centres])
    assert sorted(cluster_balanced(vectors, 3, 3, seed=0)) == [16, 33, 50]


def test_the_configured_method_chooses() -> None:
    sizes = [50, 3, 20, 1]
    vectors, labels = clusters(sizes), np.repeat(np.arange(4), sizes)
    identifiers = [f"id {number}" for number in range(len(labels))]

    def counts(method: str, count: int) -> list[int]:
        parameters = DiversityParameters(count=count, method=method, clusters=2)  # type: ignore[arg-type]
        return np.bincount(labels[choose_diverse(identifiers, vectors, parameters)], minlength=4).tolist()

    assert counts("k_centre", 4) == [1, 1, 1, 1]
    # Two clusters for four heaps: of heaps that share one, only those nearest to its middle are taken.
    assert 0 in counts("clusters", 4)


@pytest.mark.parametrize("method", ["k_centre", "clusters"])
def test_choice_does_not_depend_on_order_and_does_on_the_seed(method: str) -> None:
    random = np.random.default_rng(5)
    vectors = random.normal(size=(200, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    identifiers = [f"id {number}" for number in range(200)]

    def chosen(order: np.ndarray, seed: int) -> set[str]:
        parameters = DiversityParameters(count=20, method=method, clusters=5, seed=seed)  # type: ignore[arg-type]
        names = [identifiers[index] for index in order]
        return {names[index] for index in choose_diverse(names, vectors[order], parameters)}

    plain = np.arange(200)
    assert chosen(plain, 0) == chosen(random.permutation(200), 0)
    assert len(chosen(plain, 0)) == 20
    assert chosen(plain, 0) != chosen(plain, 1)


def test_all_stay_where_there_are_no_more_than_wanted() -> None:
    vectors = clusters([3])
    for count in (None, 3, 10):
        assert choose_diverse(["a", "b", "c"], vectors, DiversityParameters(count=count)).tolist() == [0, 1, 2]
