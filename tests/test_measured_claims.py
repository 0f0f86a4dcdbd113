"""The benchmarks of the alarm and of the table of claims: their statistics, their sources, and a tiny run."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
PROMPTS = [f"p{number}" for number in range(16)]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def training(flaw: str, truth: list[float], held_out: list[float]) -> dict[str, Any]:
    """A training of one checkpoint per value, whose judge always rises; hold-outs of the original agree with it."""
    random = np.random.default_rng(0)
    noise = {prompt: random.normal() for prompt in PROMPTS}
    quality = random.normal(size=(len(PROMPTS), 4))

    def around(value: float, clips: float = 0.0) -> list[float]:
        """Rewards of four clips of each prompt."""
        scores = [noise[prompt] + value + 0.01 * random.normal(size=4) for prompt in PROMPTS]
        return (np.array(scores) + clips * quality).ravel().tolist()

    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    records = []
    for number, (true, other) in enumerate(zip(truth, held_out, strict=True)):
        others = {"prompt_id": prompts, "total": around(other, 1.0), "dim_quality": around(0.0)}
        visual = {"prompt_id": prompts, "total": others["total"], "dim_visual": others["dim_quality"]}
        records.append(
            {
                "step": 10 * number,
                "held_out": {"oracle": others, "videoreward": visual},
                "judge": {"prompt_id": prompts, "total": around(number, 1.0), "dim_quality": around(number)},
                "truth": {
                    "prompt_id": prompts,
                    "total": around(true),
                    **{f"dim_{name}": around(true) for name in ("quality", "preservation")},
                },
            }
        )
    settings = {"steps": 10 * (len(truth) - 1), "checkpoint_every": 10}
    return {"flaw": flaw, "seed": 0, "seconds": 1.0, "training": settings, "records": records}


def test_rates_count_alarms_against_the_deadline(benchmark: Any, tmp_path: Path) -> None:
    figures: ModuleType = benchmark("alarm_figures")
    rising, falling = [0.0, 1.0, 2.0, 3.0, 3.0], [0.0, 2.0, 1.0, 0.5, 0.0]
    cases = [
        figures.Case.of(one)
        for one in (
            training("smooth", [0.0, 1.0, 2.0, 1.0, 0.0], falling),  # the alarm at 20 is before the loss at 30
            training("smooth", [0.0, 2.0, 1.0, 0.5, 0.0], falling),  # at the deadline, not before
            training("smooth", [0.0, 2.0, 1.0, 0.5, 0.0], rising),  # missed
            training("none", rising, rising),
            training("none", rising, falling),  # false
        )
    ]
    assert [case.truth.deadline for case in cases] == [30, 20, 20, math.inf, math.inf]
    assert [case.step("fall of a total") for case in cases] == [20, 20, math.inf, math.inf, 20]
    found = figures.rates(cases, "fall of a total")
    assert {name: (one.hits, one.of) for name, one in found.items()} == {
        "before": (1, 3),
        "before, of those with a loss": (1, 3),
        "by deadline": (2, 3),
        "at all": (2, 3),
        "false": (1, 2),
        "false, nothing lost": (1, 2),
    }
    assert figures.unconfirmed(cases, "fall of a total") == (1, 2)
    assert cases[1].lost(20) == pytest.approx(0.5, abs=0.02)
    # The judge's reward rises by 1 from checkpoint to checkpoint: a hold-out that follows explains it.
    assert [case.step("excess") for case in cases] == [20, 20, 40, 40, 20]
    strict = figures.rates(cases, "fall of a total", 1e-6)
    assert not any(one.hits for one in strict.values())
    low, high = figures.Rate(0, 20).to_json()["interval"]
    assert (low, high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20), abs=1e-4))
    figures.report([case.training for case in cases], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"alarm.json", "alarm_roc.csv", "alarm.svg"}


@pytest.mark.parametrize("seed", range(5))
def test_the_unimodal_curve_is_the_closest(benchmark: Any, seed: int) -> None:
    unimodal = benchmark("alarm_figures").unimodal
    random = np.random.default_rng(seed)
    values = random.normal(size=7)
    curve = unimodal(values)
    top = int(curve.argmax())
    assert (np.diff(curve[: top + 1]) >= 0).all()
    assert (np.diff(curve[top:]) <= 0).all()
    error = ((curve - values) ** 2).sum()
    for _ in range(2000):
        peak = int(random.integers(8))
        near = values + random.normal(scale=0.3, size=7)
        other = np.r_[np.sort(near[:peak], kind="stable"), np.sort(near[peak:], kind="stable")[::-1]]
        assert ((other - values) ** 2).sum() >= error - 1e-9
    assert unimodal(curve) == pytest.approx(curve)


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_stepping_down_rejects(benchmark: Any, seed: int) -> None:
    holm = benchmark("claims").holm
    p_values = np.random.default_rng(seed).beta(0.3, 2.0, size=9).tolist()
    corrected = holm(p_values)
    for level in (0.01, 0.05, 0.2, 0.5):
        rejected, left = set(), sorted(range(9), key=lambda at: p_values[at])
        while left and p_values[left[0]] <= level / len(left):
            rejected.add(left.pop(0))
        assert rejected == {at for at in range(9) if corrected[at] <= level}


def test_every_claim_of_a_page_is_there(benchmark: Any) -> None:
    claims = benchmark("claims")
    for published in claims.PUBLISHED:
        row = claims.from_page(published)
        assert row.low < row.mean < row.high
        # The interval that excludes 0 is the one with a p-value below 0.05.
        assert (row.p_value < 0.05) == (row.low > 0 or row.high < 0)
    with pytest.raises(ValueError, match="has no row that begins with"):
        claims.from_page(claims.PUBLISHED[0]._replace(row="nothing"))


def test_a_claim_is_reproduced_by_sign_and_corrected_p_value(benchmark: Any) -> None:
    claims = benchmark("claims")
    row = claims.Row("VideoReward", "a", 1.0, 0.5, 1.5, 5, "b")
    assert claims.verdict(row, 0.01) == "reproduced"
    assert claims.verdict(row._replace(mean=-1.0), 0.01) == "not reproduced: the opposite"
    assert claims.verdict(row, 0.05) == "not reproduced: undecided"
    assert any("| 0.0" in line and "reproduced" in line for line in claims.table_of([row]))


def test_flaws_like_what_they_are_named_for(benchmark: Any) -> None:
    alarm = benchmark("alarm")
    random = np.random.default_rng(0)
    clip = random.integers(0, 256, size=(1, 8, 16, 16, 3)).astype(np.float64)
    frozen = clip[:, :1].repeat(8, axis=1)
    blurred = (clip + np.roll(clip, 1, axis=2) + np.roll(clip, 1, axis=3)) / 3
    flicker = clip * np.where(np.arange(8) % 2, 0.5, 1.0)[:, None, None, None]
    for name, other in (("smooth", blurred), ("flickering", flicker), ("still", frozen)):
        assert alarm.FLAWS[name].pattern(other)[0] > alarm.FLAWS[name].pattern(clip)[0]
