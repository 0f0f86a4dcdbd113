"""The report of comparisons against sums by hand."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from vr_pipeline.pairs.ranking_report import ranking_report

RECORDS = pd.DataFrame({"key": ["p", "q"], "clips": [4, 3], "comparisons": [3, 2], "requests": [6, 4]})


def comparisons(*, twice: bool) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "prompt_id": ["p", "p", "p", "q"],
            "position_bias": [0.1, -0.3, 0.0, 0.2],
            "outside_mass": [0.0, 0.2, 0.1, 0.1],
            "better": ["a", "tie", "b", "tie"],
        }
    )
    if twice:
        first, second = [[0.6, 0.3, 0.1]] * 4, [[0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]]
        for end, rows in (("first_order", first), ("second_order", second)):
            for at, answer in enumerate(("a", "b", "tie")):
                table[f"p_{answer}_{end}"] = [row[at] for row in rows]
    return table


def test_numbers_costs_bias_and_flips() -> None:
    report = ranking_report(comparisons(twice=True), RECORDS)
    expected = {"prompts": 2, "clips": 7, "comparisons": 5, "requests": 10, "compared": 4, "failed": 1, "ties": 0.5}
    assert {name: report[name] for name in expected} == expected
    # The second and the third answer change with the order.
    assert report["order_flips"] == 0.5
    bias = report["position_bias"]
    assert (bias["mean"], bias["size"], bias["largest"]) == pytest.approx((0.0, 0.15, 0.3))
    assert bias["no_interval"] == "2 prompts; an interval needs 5"
    assert report["outside_mass"] == pytest.approx({"mean": 0.1, "largest": 0.2})


def test_a_ranker_of_single_clips_has_no_flips_and_nothing_compared_gives_null() -> None:
    assert ranking_report(comparisons(twice=False), RECORDS)["order_flips"] is None
    report = ranking_report(comparisons(twice=True).head(0), RECORDS.head(0))
    assert (report["compared"], report["ties"], report["order_flips"]) == (0, None, None)
    assert report["position_bias"]["mean"] is report["outside_mass"]["largest"] is None
    json.dumps(report, allow_nan=False)
