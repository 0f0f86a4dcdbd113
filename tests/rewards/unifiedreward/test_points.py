"""Numbers from likelihoods, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.judges.contract import NoNumbersError
from vr_pipeline.rewards.unifiedreward.forms import PointTemplate
from vr_pipeline.rewards.unifiedreward.points import (
    LineScore,
    PairScore,
    better_of,
    both_orders,
    line_score,
    pair_score,
    point_score,
)
from vr_pipeline.rewards.unifiedreward.scales import ScoreLine

SCALE = ScoreLine(dimension="look", low=1, high=3)


def test_a_score_by_hand() -> None:
    """P(1) = .1, P(2) = .2, P(3) = .2: half of the mass is elsewhere; (.1 + .4 + .6) / .5 = 2.2."""
    found = line_score(np.log([0.1, 0.2, 0.2]), SCALE)
    assert found.value == pytest.approx(2.2)
    assert found.outside == pytest.approx(0.5)
    assert found.likeliest == "2"  # the first of equally likely ones


def test_values_that_are_hardly_likely_still_have_an_expectation() -> None:
    found = line_score(np.array([-900.0, -900.0 + np.log(3), -2000.0]), SCALE)
    assert found.value == pytest.approx(1.75)
    assert found.outside == 1.0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 0.5])
def test_what_is_no_log_probability_is_rejected(wrong: float) -> None:
    likelihoods = np.array([-1.0, wrong, -2.0])
    with pytest.raises(NoNumbersError, match="look"):
        line_score(likelihoods, SCALE)
    with pytest.raises(NoNumbersError, match="comparison"):
        pair_score(likelihoods)


def test_a_comparison_by_hand() -> None:
    three = pair_score(np.log([0.3, 0.1, 0.1]))
    assert (three.first, three.second, three.tie) == pytest.approx((0.6, 0.2, 0.2))
    assert three.outside == pytest.approx(0.5)
    two = pair_score(np.log([0.3, 0.1]))
    assert (two.first, two.second, two.tie) == pytest.approx((0.75, 0.25, 0.0))


def test_both_orders_by_hand() -> None:
    """The first place is preferred in either order; the average knows better."""
    row = both_orders(PairScore(0.7, 0.2, 0.1, outside=0.1), PairScore(0.5, 0.4, 0.1, outside=0.3))
    assert (row["p_a"], row["p_b"], row["p_tie"]) == pytest.approx((0.55, 0.35, 0.1))
    assert row["position_bias"] == pytest.approx((0.7 - 0.4) / 2)
    assert row["outside_mass"] == pytest.approx(0.2)
    assert row["better"] == "a"
    assert (row["p_a_first_order"], row["p_a_second_order"]) == (0.7, 0.4)
    assert (row["p_b_first_order"], row["p_b_second_order"]) == (0.2, 0.5)


def test_a_model_that_always_prefers_the_first_finds_a_tie() -> None:
    always = PairScore(0.9, 0.1, 0.0, outside=0.0)
    row = both_orders(always, always)
    assert row["better"] == "tie"
    assert row["p_a"] == row["p_b"] == pytest.approx(0.5)
    assert row["position_bias"] == pytest.approx(0.4)


shares = st.tuples(*[st.floats(1e-6, 1.0)] * 3).map(lambda values: [value / sum(values) for value in values])


@given(first=shares, second=shares)
def test_swapping_the_sides_swaps_the_result(first: list[float], second: list[float]) -> None:
    one, other = PairScore(*first, outside=0.0), PairScore(*second, outside=0.0)
    ahead, back = both_orders(one, other), both_orders(other, one)
    assert ahead["p_a"] == pytest.approx(back["p_b"])
    assert ahead["p_tie"] == pytest.approx(back["p_tie"])
    assert ahead["p_a"] + ahead["p_b"] + ahead["p_tie"] == pytest.approx(1.0)
    gaps = sorted((ahead["p_a"], ahead["p_b"], ahead["p_tie"]))
    if gaps[2] - gaps[1] > 1e-6:
        assert {"a": "b", "b": "a", "tie": "tie"}[ahead["better"]] == back["better"]


@pytest.mark.parametrize(
    ("p", "better"),
    [
        ((0.5, 0.3, 0.2), "a"),
        ((0.3, 0.5, 0.2), "b"),
        ((0.4, 0.2, 0.4), "tie"),
        ((0.45, 0.45, 0.1), "tie"),
        ((0.45, 0.45 + 1e-12, 0.1), "tie"),
        ((0.2, 0.3, 0.5), "tie"),
    ],
)
def test_better(p: tuple[float, float, float], better: str) -> None:
    assert better_of(*p) == better


def asked(total: str) -> PointTemplate:
    lines: list[dict[str, Any]] = [
        {"dimension": "look", "low": 1, "high": 5},
        {"dimension": "detail", "low": 0, "high": 100},
        {"dimension": "total", "low": 1, "high": 10},
    ]
    return PointTemplate.model_validate({"text": "[[clip]]", "lines": lines, "total": total})


@pytest.mark.parametrize(("total", "expected"), [("mean", 39.5), ("scaled_mean", (0.75 + 0.75) / 2), ("line", 7.0)])
def test_the_overall_score(total: str, expected: float) -> None:
    lines = {"look": LineScore(4.0, 0.1, "4"), "detail": LineScore(75.0, 0.3, "75")}
    if total == "line":
        lines["total"] = LineScore(7.0, 0.2, "7")
    score = point_score(lines, asked(total))
    assert score.total == pytest.approx(expected)
    assert score.outside == pytest.approx(0.2)
