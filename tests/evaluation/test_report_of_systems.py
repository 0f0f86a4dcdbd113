"""The page of systems that have no checklist, or no reward: it shows what there is and says what there is not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from report_inputs import TITLES, report_inputs
from vr_pipeline.evaluation.metrics import evaluation_metrics
from vr_pipeline.evaluation.plots import rewards_by_dimension
from vr_pipeline.evaluation.report import PROVENANCE, SECTIONS, join_sections
from vr_pipeline.pipelines.evaluation.nodes import report_section
from vr_pipeline.pipelines.recipes import RECIPES

OF_CHECKLIST = ("reward_weights", "reward_agreement", "evaluation_answers", "pair_scores", "judge_oracle_agreement")
PICTURES_OF_CHECKLIST = ("preference_calibration", "accuracy_curve", "question_correlation")
DIMENSIONS = {"dim_alignment": "dim_visual", "dim_quality": "dim_motion", "dim_dynamics": "dim_text"}


def page(data: dict[str, Any]) -> str:
    """The page as the pipeline makes it of the datasets that there are."""
    recipes = [recipe.name for recipe in RECIPES]
    made = {
        section.name: report_section(section, data, RECIPES)(*(data[name] for name in section.datasets(recipes, data)))
        for section in (*SECTIONS, PROVENANCE)
        if section.is_possible(recipes, data)
    }
    return join_sections(data["params:evaluation"].report, made)


def sections(text: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', text)


@pytest.fixture(scope="module")
def of_model() -> dict[str, Any]:
    """What a run by a reward model has: its own dimensions for the judge, the oracle's as before."""
    data = {name: value for name, value in report_inputs().items() if name not in OF_CHECKLIST}
    data = {name: value for name, value in data.items() if not name.startswith(PICTURES_OF_CHECKLIST)}
    data["evaluation_rewards"] = data["evaluation_rewards"].rename(columns=DIMENSIONS)
    index = data["evaluation_video_index"]
    pairs = {"dpo": data["preference_pairs_dpo"], "mpo": data["preference_pairs_dpo"].head(0)}
    metrics = evaluation_metrics(data["evaluation_rewards"], data["evaluation_oracle_rewards"], {}, index, None, pairs)
    data["evaluation_metrics"] = metrics | {"reward": {"type": "videoreward", "identity": "0123abcd"}}
    return data


def test_without_a_checklist_the_page_has_no_section_on_it(of_model: dict[str, Any]) -> None:
    whole, text = sections(page(report_inputs())), page(of_model)
    assert set(whole) - set(sections(text)) == {"weights", "people", "disagreement"}
    assert [name for name in whole if name in sections(text)] == sections(text)
    for dimension in ("visual", "motion", "text", "alignment", "quality", "dynamics"):
        assert dimension in text
    assert "videoreward, identity 0123abcd" in text
    for words in ("Answers of the judge", "Encoding of answers", "Held-out preferences", "questions kept"):
        assert words in page(report_inputs())
        assert words not in text


def test_plots_show_each_source_in_its_own_dimensions(of_model: dict[str, Any]) -> None:
    judge, oracle = rewards_by_dimension(of_model["evaluation_metrics"], TITLES).axes
    assert [label.get_text() for label in judge.get_xticklabels()] == ["visual", "motion", "text"]
    assert [label.get_text() for label in oracle.get_xticklabels()] == ["alignment", "quality", "dynamics"]


def test_without_any_reward_clips_stand_side_by_side(of_model: dict[str, Any]) -> None:
    nothing = {name: of_model[name].head(0) for name in ("evaluation_rewards", "evaluation_oracle_rewards")}
    metrics = evaluation_metrics(
        nothing["evaluation_rewards"],
        nothing["evaluation_oracle_rewards"],
        {},
        of_model["evaluation_video_index"],
        None,
        {},
    )
    assert metrics["policies"] == {"original": {}, "dpo": {}, "mpo": {}}
    assert metrics["gain"] == {"dpo": {}, "mpo": {}}
    text = page(of_model | nothing | {"evaluation_metrics": metrics | {"reward": {"type": None}}})
    assert "This run has no reward" in text
    assert "clips" in sections(text)
    assert not {"rewards", "wins"} & set(sections(text))
    assert "The judge is the reward" not in text
    assert rewards_by_dimension(metrics, TITLES).axes[0].texts[0].get_text().startswith("no reward")
