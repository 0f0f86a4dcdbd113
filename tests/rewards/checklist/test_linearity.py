"""People whose utility is not linear: a linear reward falls short of its ceiling, and the statistic says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.support.report_inputs import TITLES

from vr_pipeline.checklist import load_checklist
from vr_pipeline.evaluation.report.sections import agreement as section
from vr_pipeline.micro_world.config import PreferenceParameters, TasteParameters
from vr_pipeline.micro_world.preferences import overall_utilities, perceive, utilities
from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.linear import dimension_scores, score
from vr_pipeline.rewards.checklist.linearity import linearity

CHECKLIST = load_checklist(Path(__file__).resolve().parents[3] / "conf/base/checklist.yml")
NONLINEAR = TasteParameters(interaction=3.0, veto=4.0, veto_below=0.6)


def preferences(taste: TasteParameters, seed: int, pairs: int = 3000) -> dict[str, Any]:
    """What a fit of the weights, a person without noise and the statistic reach on the pairs of half of the prompts."""
    random = np.random.default_rng(seed)
    # Most clips have few flaws, as those of a generator do.
    clips = (random.random((2 * pairs, len(CHECKLIST.question_ids))) < 0.75).astype(float)
    first, second = clips[:pairs], clips[pairs:]
    worth = overall_utilities(clips, CHECKLIST, taste)
    people = PreferenceParameters()
    labels = [perceive(a - b, random, people) for a, b in zip(worth[:pairs], worth[pairs:], strict=True)]
    number = np.arange(pairs) % 60
    table = pd.DataFrame(
        {
            "preference": labels,
            "prompt_id": [f"p{n}" for n in number],
            "split": np.where(number < 30, "fit", "held_out"),
        }
    )
    fit, test = ((table["split"] == name).to_numpy() for name in ("fit", "held_out"))
    weights = fit_weights(
        first[fit],
        second[fit],
        table["preference"].to_numpy()[fit].astype(str),
        question_ids=CHECKLIST.question_ids,
        penalty=1e-4,
        bootstrap_samples=0,
    )
    decided = test & (table["preference"] != "tie").to_numpy()
    truth = (table["preference"] == "a").to_numpy()[decided]

    def right(values: np.ndarray) -> float:
        return float(((values[:pairs] - values[pairs:])[decided] > 0).astype(bool).__eq__(truth).mean())

    dimensions = dimension_scores(clips, weights, CHECKLIST).to_numpy()
    return {
        "fitted": right(score(clips, weights)),
        "ceiling": right(worth),
        "found": linearity((first, second), (dimensions[:pairs], dimensions[pairs:]), table),
    }


def test_without_taste_the_utility_is_the_sum_over_questions() -> None:
    said = np.random.default_rng(0).random((9, len(CHECKLIST.question_ids)))
    expected = utilities(said, CHECKLIST.question_ids)
    assert overall_utilities(said, CHECKLIST, TasteParameters()) == pytest.approx(expected, abs=0)


def test_taste_by_hand() -> None:
    perfect = np.ones((1, len(CHECKLIST.question_ids)))
    blind = perfect.copy()
    quality = [place for place, question in enumerate(CHECKLIST.questions) if question.dimension == "quality"]
    blind[:, quality] = 0.0
    taste = TasteParameters(interaction=2.0, veto=1.5, veto_below=0.5)
    linear = utilities(np.vstack([perfect, blind]), CHECKLIST.question_ids)
    valued = overall_utilities(np.vstack([perfect, blind]), CHECKLIST, taste)
    # The perfect clip has the whole product; the other one has none of it, and one dimension that is bad.
    assert valued - linear == pytest.approx([2.0, -1.5])


def test_a_linear_fit_loses_agreement_where_people_are_not_linear_and_the_statistic_shows_it() -> None:
    linear = [preferences(TasteParameters(), seed) for seed in range(3)]
    curved = [preferences(NONLINEAR, seed) for seed in range(3)]
    lost = {
        name: np.mean([one["ceiling"] - one["fitted"] for one in of])
        for name, of in (("linear", linear), ("curved", curved))
    }
    assert abs(lost["linear"]) < 0.01
    assert lost["curved"] > 0.02
    for one in curved:
        assert one["found"]["ci_low"] > 0
        assert one["found"]["diff_products"] > one["found"]["diff_linear"]
    for one in linear:
        assert one["found"]["ci_low"] < 0.005
        assert abs(one["found"]["gain"]) < 0.01


@pytest.mark.parametrize(("taste", "expected"), [(NONLINEAR, "no weights of the questions"), (TasteParameters(), "")])
def test_the_report_says_so(taste: TasteParameters, expected: str) -> None:
    measured = {"n": 10, "n_ties": 1, "tau": 0.5, "diff": 0.6, "epsilon": 0.0}
    text = " ".join(section.make(TITLES, measured | {"linearity": preferences(taste, 0)["found"]}, None, None, None))
    assert ("no weights of the questions" in text) == bool(expected)
    assert "log-loss" in text
    assert "log-loss" not in " ".join(section.make(TITLES, measured | {"linearity": None}, None, None, None))


def test_the_order_within_pairs_and_of_pairs_changes_nothing_and_few_pairs_say_nothing() -> None:
    random = np.random.default_rng(1)
    a, b = random.random((200, 3)), random.random((200, 3))
    labels = np.where(a.sum(axis=1) > b.sum(axis=1), "a", "b")
    table = pd.DataFrame(
        {"preference": labels, "prompt_id": [f"p{n % 20}" for n in range(200)], "split": ["fit", "held_out"] * 100}
    )
    found = linearity((a, b), (a, b), table)
    other = table.assign(preference=np.where(labels == "a", "b", "a"))
    turned = linearity((b, a), (b, a), other)
    order = random.permutation(200)
    mixed = linearity((a[order], b[order]), (a[order], b[order]), table.iloc[order].reset_index(drop=True))
    assert found is not None
    for again in (turned, mixed):
        assert again is not None
        assert again == pytest.approx(found, abs=1e-5)
    assert linearity((a[:30], b[:30]), (a[:30], b[:30]), table.iloc[:30]) is None
