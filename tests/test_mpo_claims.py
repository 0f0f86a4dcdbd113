"""The benchmark of MPO against DPO: its pairs, weights and statistics, without a training."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vr_pipeline.checklist import Checklist, load_checklist
from vr_pipeline.micro_world.preferences import UTILITY

ROOT = Path(__file__).parents[1]
PROMPTS = [f"prompt {number}" for number in range(6)]
CLIPS = 22


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("mpo_claims")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("mpo_figures")


@pytest.fixture(scope="module")
def checklist() -> Checklist:
    return load_checklist(ROOT / "conf/base/checklist.yml")


@pytest.fixture
def drawn(claims: Any, checklist: Checklist) -> Any:
    """Clips with random answers, and comparisons that prefer clips with more of them yes."""
    random = np.random.default_rng(0)
    index = pd.DataFrame(
        [
            {"video_id": f"{prompt} {number}", "prompt": prompt, "prompt_id": prompt, "sample_index": number}
            for prompt in PROMPTS
            for number in range(CLIPS)
        ]
    )
    p_yes = random.beta(0.5, 0.5, (len(index), len(checklist.question_ids)))
    utility = dict(zip(index["video_id"], (p_yes > 0.5).sum(axis=1), strict=True))
    rows = []
    for prompt in PROMPTS:
        spare = [f"{prompt} {number}" for number in range(claims.PAIRED, CLIPS)]
        for first in spare:
            for second in spare:
                difference = utility[first] - utility[second]
                if difference:
                    label = "a" if difference + random.logistic() > 0 else "b"
                    rows.append({"prompt": prompt, "video_id_a": first, "video_id_b": second, "preference": label})
    return claims.Drawn(index, [], p_yes, pd.DataFrame(rows), {}, {})


def test_both_rules_have_equally_many_pairs_of_clips_for_pairs(claims: Any, drawn: Any, checklist: Checklist) -> None:
    world = SimpleNamespace(checklist=checklist)
    cell = claims.Cell("shipped", "errors", "true")
    weights = claims.weights_of(world, drawn, cell, 0)
    pairs = claims.pairs_of(world, drawn, cell, weights, 0)
    assert len(pairs["dpo"]) == len(pairs["mpo"]) > 0
    assert pairs["mpo"]["dominates"].all()
    assert not pairs["dpo"]["dominates"].all()
    number = drawn.index.set_index("video_id")["sample_index"]
    for table in pairs.values():
        winner, loser = (number[table[f"{side}_video_id"]].to_numpy() for side in ("winner", "loser"))
        assert max(winner.max(), loser.max()) < claims.PAIRED
        assert (winner // 4 == loser // 4).all()


def test_weights_are_those_of_the_cell(claims: Any, drawn: Any, checklist: Checklist) -> None:
    world = SimpleNamespace(checklist=checklist)

    def of(judge: str, weights: str, factor: int = 1) -> np.ndarray:
        return claims.weights_of(world, drawn, claims.Cell("shipped", judge, weights, factor), 0).weights

    people = np.array([UTILITY[question] for question in checklist.question_ids])
    assert (of("errors", "true") == people).all()
    raised = np.array([question.dimension == "dynamics" for question in checklist.questions])
    assert (of("biased", "true", 4) == people * np.where(raised, 4, 1)).all()
    assert not (of("errors", "fitted") == of("as is", "fitted")).all()
    assert (of("biased", "fitted") >= 0).all()


def test_every_cell_has_a_name_of_its_own(claims: Any) -> None:
    assert len({cell.name for cell in claims.CELLS}) == len(claims.CELLS)
    assert {cell.judge for cell in claims.CELLS} == set(claims.FAULTS)


def training(cell: Any, rule: str, seed: int, gain: float, earlier: float | None = None) -> dict[str, Any]:
    """A stored training that gains in quality alone; with a checkpoint half-way that the judge likes better."""

    def record(step: int, value: float, validation: float) -> dict[str, Any]:
        names = ("alignment", "quality", "dynamics", "preservation", "stability")
        gains = {f"dim_{name}": value if name == "quality" else 0.0 for name in names} | {"total": value}
        return {"step": step, "validation": validation, "oracle": gains, "auditor": gains}

    records = ([] if earlier is None else [record(20, earlier, 2.0)]) + [record(40, gain, 1.0)]
    facts = {"cell": cell.name, **cell._asdict(), "rule": rule, "seed": seed, "pairs": 90}
    return {**facts, "right": 0.9, "gap": 1.5, "weights": {}, "records": records, "seconds": 1.0}


def test_leads_and_intervals_are_over_seeds(claims: Any, figures: Any, tmp_path: Path, capsys) -> None:
    plain, errors = claims.Cell("shipped", "as is", "fitted"), claims.Cell("shipped", "errors", "true")
    ahead = [0.1, 0.3, 0.2, 0.4]
    rows = [
        training(plain, rule, seed, 1.0 + seed + (by if rule == "mpo" else 0.0))
        for seed, by in enumerate(ahead)
        for rule in ("mpo", "dpo")
    ]
    rows += [
        training(errors, rule, seed, 1.0, earlier=1.0 + 0.1 * seed) for seed in (0, 1, 2) for rule in ("dpo", "mpo")
    ]
    # A seed without its other rule counts nowhere.
    rows.append(training(plain, "dpo", 9, 5.0))
    table = figures.flat(rows)
    assert figures.leads(table, plain.name, "oracle_total") == pytest.approx(ahead)
    found = figures.claims(table, rows)
    assert found["MPO gains more than DPO in the shipped world"] == pytest.approx(ahead)
    assert "MPO gains more than DPO where dimensions trade off" not in found
    chosen = found["the checkpoint that the judge with errors likes best gains more than the last"]
    assert chosen == pytest.approx([0.0, 0.1, 0.2])

    mean, low, high = figures.over_seeds(ahead)
    expected = stats.ttest_1samp(ahead, 0.0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((0.25, expected.low, expected.high))
    assert figures.shown([0.1, 0.2]) == "+0.15"

    figures.report(rows, tmp_path)
    text = (tmp_path / "mpo_claims.md").read_text(encoding="utf-8")
    assert f"| MPO gains more than DPO in the shipped world | {figures.shown(ahead)} | 4 |" in text
    assert text in capsys.readouterr().out
    assert (tmp_path / "mpo_claims.svg").is_file()


def test_no_result_is_no_error(figures: Any, tmp_path: Path, capsys) -> None:
    figures.report([], tmp_path)
    assert "no training is stored" in capsys.readouterr().out
