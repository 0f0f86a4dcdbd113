"""Three-way accuracy, macro accuracy and order flips against plain counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.statistics.three_way import macro_accuracy, order_flips, three_way

LABEL = st.sampled_from(["a", "b", "tie"])
PAIRS = st.lists(st.tuples(LABEL, LABEL), min_size=1, max_size=40)
MIRROR = {"a": "b", "b": "a", "tie": "tie"}


@given(PAIRS)
def test_counts(pairs: list[tuple[str, str]]) -> None:
    said, people = ([pair[end] for pair in pairs] for end in (0, 1))
    found = three_way(said, people)
    correct = sum(one == other for one, other in pairs)
    correct_ties = sum(one == other == "tie" for one, other in pairs)
    ties = people.count("tie")
    assert found.three_way_accuracy == pytest.approx(correct / len(pairs))
    if ties < len(pairs):
        # The formula of UnifiedReward's diff.
        assert found.decided_accuracy == pytest.approx((correct - correct_ties) / (len(pairs) - ties))
    else:
        assert math.isnan(found.decided_accuracy)
    assert (found.n, found.n_ties) == (len(pairs), ties)
    assert found.tie_share == pytest.approx(said.count("tie") / len(pairs))
    for constant, baseline in (("a", found.always_first), ("tie", found.always_tie)):
        assert baseline == three_way([constant] * len(pairs), people).three_way_accuracy
    # Which clip is called A changes only what depends on it.
    turned = three_way([MIRROR[one] for one in said], [MIRROR[one] for one in people])
    assert turned.three_way_accuracy == found.three_way_accuracy
    assert turned.always_tie == found.always_tie


def test_no_pairs_have_no_figure() -> None:
    assert math.isnan(three_way([], []).three_way_accuracy)
    assert three_way([], []).to_json()["three_way_accuracy"] is None
    assert math.isnan(order_flips([], []))
    assert math.isnan(macro_accuracy([], []))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("xyz")), min_size=1, max_size=30))
def test_macro_accuracy_gives_every_group_the_same_weight(items: list[tuple[bool, str]]) -> None:
    shares = []
    for name in {group for _, group in items}:
        of_group = [right for right, group in items if group == name]
        shares.append(sum(of_group) / len(of_group))
    found = macro_accuracy([right for right, _ in items], [group for _, group in items])
    assert found == pytest.approx(np.mean(shares))


@given(PAIRS)
def test_flips_are_the_answers_that_change_with_the_order(pairs: list[tuple[str, str]]) -> None:
    first, second = ([pair[end] for pair in pairs] for end in (0, 1))
    assert order_flips(first, second) == pytest.approx(np.mean([one != other for one, other in pairs]))
    assert order_flips(first, first) == 0.0
    assert order_flips(first, second) == order_flips(second, first)


def test_other_words_and_other_numbers_are_rejected() -> None:
    with pytest.raises(InputError, match="unknown label 'same'"):
        three_way(["same"], ["a"])
    with pytest.raises(InputError, match="1 labels for 2 pairs"):
        three_way(["a"], ["a", "b"])
    with pytest.raises(InputError, match="2 items have 1 groups"):
        macro_accuracy([True, False], ["x"])
    with pytest.raises(InputError, match="1 labels for 2 pairs"):
        order_flips(["a", "b"], ["tie"])
