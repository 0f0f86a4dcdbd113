"""Pairwise accuracy against the brute force, and on real annotations."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.statistics.agreement import pairwise_accuracy

pairs = st.lists(
    st.tuples(st.one_of(st.integers(-4, 4).map(float), st.floats(-3, 3)), st.sampled_from(["a", "b", "tie"])),
    min_size=1,
    max_size=25,
)


def brute_force(values: list[float], labels: list[str], epsilon: float) -> int:
    right = 0
    for value, label in zip(values, labels, strict=True):
        called = "tie" if abs(value) <= epsilon else ("a" if value > 0 else "b")
        right += called == label
    return right


@given(pairs)
def test_tau_is_the_best_over_all_thresholds(sample: list[tuple[float, str]]) -> None:
    values, labels = [value for value, _ in sample], [label for _, label in sample]
    result = pairwise_accuracy(values, labels)
    thresholds = sorted({0.0, *(abs(value) for value in values)})
    counts = [brute_force(values, labels, epsilon) for epsilon in thresholds]
    assert result.tau == max(counts) / len(values)
    assert result.epsilon == thresholds[counts.index(max(counts))]
    decided = [(value, label) for value, label in sample if label != "tie"]
    right = sum((value > 0 and label == "a") or (value < 0 and label == "b") for value, label in decided)
    assert math.isnan(result.diff) if not decided else result.diff == right / len(decided)
    assert (result.n, result.n_ties) == (len(values), len(values) - len(decided))


@given(pairs, st.one_of(st.integers(0, 4).map(float), st.floats(0, 3)))
def test_a_threshold_chosen_elsewhere_is_used_as_it_is(sample: list[tuple[float, str]], epsilon: float) -> None:
    values, labels = [value for value, _ in sample], [label for _, label in sample]
    result = pairwise_accuracy(values, labels, epsilon=epsilon)
    assert result.tau == brute_force(values, labels, epsilon) / len(values)
    best = pairwise_accuracy(values, labels)
    assert (result.diff, result.epsilon, result.n, result.n_ties) == pytest.approx(
        (best.diff, epsilon, best.n, best.n_ties), nan_ok=True
    )


@given(pairs, st.randoms(use_true_random=False))
def test_neither_order_nor_side_matters(sample: list[tuple[float, str]], random: object) -> None:
    shuffled = list(sample)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    turned = [(-value, {"a": "b", "b": "a", "tie": "tie"}[label]) for value, label in shuffled]
    first = pairwise_accuracy(*zip(*sample, strict=True))
    for other in (pairwise_accuracy(*zip(*shuffled, strict=True)), pairwise_accuracy(*zip(*turned, strict=True))):
        assert other.to_json() == first.to_json()


def test_a_tie_of_the_model_is_wrong_for_diff() -> None:
    assert pairwise_accuracy([0.0, 1.0], ["a", "a"]).diff == 0.5


def test_without_pairs_and_with_bad_ones() -> None:
    assert pairwise_accuracy([], []).to_json() == {"tau": None, "diff": None, "epsilon": 0.0, "n": 0, "n_ties": 0}
    with pytest.raises(InputError, match="row 2, field 'difference'"):
        pairwise_accuracy([1.0, math.nan], ["a", "b"])
    with pytest.raises(InputError, match="differences have shape"):
        pairwise_accuracy([[1.0]], ["a"])
    with pytest.raises(InputError, match="row 1, field 'preference': unknown label 'A'"):
        pairwise_accuracy([1.0], ["A"])


@pytest.mark.real_data
def test_clip_score_on_human_grades_gives_the_published_reference_figures(real_data: Path) -> None:
    table = read_preferences(
        real_data / "data/preferences/tifa160_human_annotations_with_scores.json",
        "rated_items",
        columns={"group": "text_id", "prompt": "text", "score": "clipscore_vitb32"},
        criterion="human_avg",
    )
    assert len(table) == 1600
    result = pairwise_accuracy(table["score_a"] - table["score_b"], table["preference"])
    assert result.tau == 0.48375
    assert round(result.diff, 3) == 0.695
