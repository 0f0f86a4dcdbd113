"""The benchmark of rounds: its arms, its statistics and its report."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("rounds")


def arm(*gains: float) -> dict[str, Any]:
    def found(mean: float) -> dict[str, float]:
        return {"mean": mean, "ci_low": mean - 0.1, "ci_high": mean + 0.1}

    return {"rounds": [{"oracle": found(gain), "auditor": found(gain / 2)} for gain in gains]}


def test_both_arms_judge_as_many_clips_and_train_as_many_steps(rounds: Any) -> None:
    arms = {name: rounds.settings_of(name, 3) for name in rounds.ARMS}
    totals = {(one.rounds * one.videos_per_prompt, one.rounds * one.training["steps"]) for one in arms.values()}
    assert len(totals) == 1
    assert all(one.validation is None for one in arms.values())
    assert arms["three"].seed == arms["one"].seed != rounds.settings_of("one", 4).seed


def test_the_ratio_has_students_interval_of_its_logarithm(rounds: Any) -> None:
    found = rounds.ratio_over_seeds([1.0, 2.0, 4.0])
    half = stats.t.ppf(0.975, 2) * math.log(2) / math.sqrt(3)
    assert found["geometric_mean"] == pytest.approx(2)
    assert found["interval"] == pytest.approx([2 / math.exp(half), 2 * math.exp(half)])
    assert found["at_least_1.3_in"] == 2
    assert rounds.ratio_over_seeds([1.5, -0.5])["interval"] is None


def test_the_report_has_a_row_per_seed_and_compares_the_last_rounds(rounds: Any, capsys: Any) -> None:
    results = [
        {"seed": seed, "one": arm(1.0), "three": arm(0.5, 0.75, gain)} for seed, gain in enumerate((1.5, 2.5), start=1)
    ]
    summary = rounds.report(results, "oracle")
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "| 1 | 1.00 (0.90 to 1.10) | 1.50 (1.40 to 1.60) | 1.50 | 0.50, 0.75 |"
    assert (summary["gain_of_one"], summary["gain_of_three"]) == (1.0, 2.0)
    assert summary["difference"] == pytest.approx(1.0)
    assert rounds.report(results, "auditor")["gain_of_three"] == 1.0
