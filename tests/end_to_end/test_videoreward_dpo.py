"""videoreward_dpo on the embedded default: a reward model scores clips, chooses checkpoints and compares policies."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow

DIMENSIONS = {"visual", "motion", "text"}


@pytest.fixture
def run(reward_run: tuple[Path, str]) -> tuple[Path, str]:
    """The folder of the run, and what it printed."""
    return reward_run


def test_metrics_have_the_form_of_mpo_dpo(run: tuple[Path, str]) -> None:
    metrics = json.loads((run[0] / "data/08_reporting/evaluation_metrics.json").read_text())
    assert set(metrics["policies"]) == {"original", "dpo", "mpo"}
    for policy in metrics["policies"].values():
        assert set(policy["judge"]["dimensions"]) == DIMENSIONS
        assert set(policy["oracle"]["dimensions"]) == {"alignment", "quality", "dynamics", "preservation", "stability"}
        # The paper's total: the mean of the dimensions.
        parts = [value["mean"] for value in policy["judge"]["dimensions"].values()]
        assert sum(parts) / 3 == pytest.approx(policy["judge"]["total"]["mean"], abs=1e-6)
    for name in ("dpo", "mpo"):
        assert set(metrics["gain"][name]) == {"judge", "oracle", "auditor"}
        pairs = metrics["pairs"][name]
        assert pairs["n"] == pairs["dominating"] + pairs["not_dominating"] > 0
    assert metrics["pairs"]["mpo"]["not_dominating"] == 0
    assert metrics["agreement"] is None
    assert metrics["reward"]["type"] == "videoreward"


def test_every_clip_has_its_scores_and_what_scored_it(run: tuple[Path, str]) -> None:
    metrics = json.loads((run[0] / "data/08_reporting/evaluation_metrics.json").read_text())
    for name in ("rewards", "evaluation_rewards"):
        table = pd.read_parquet(run[0] / f"data/07_model_output/{name}.parquet")
        assert {column.removeprefix("dim_") for column in table if column.startswith("dim_")} == DIMENSIONS
        assert set(table["model"]) == {metrics["reward"]["identity"]}
        assert not table["outside_training"].any()
    index = pd.read_parquet(run[0] / "data/03_primary/video_index.parquet")
    scored = pd.read_parquet(run[0] / "data/07_model_output/rewards.parquet")
    assert sorted(scored["video_id"]) == sorted(index["video_id"])


def test_pairs_follow_the_scores(run: tuple[Path, str]) -> None:
    rewards = pd.read_parquet(run[0] / "data/07_model_output/rewards.parquet").set_index("video_id")
    for recipe in ("dpo", "mpo"):
        pairs = pd.read_parquet(run[0] / f"data/05_model_input/preference_pairs_{recipe}.parquet")
        winners, losers = (
            rewards.loc[pairs[f"{side}_video_id"]].reset_index(drop=True) for side in ("winner", "loser")
        )
        assert ((winners["total"] - losers["total"]) > 0).all()
        gaps = pd.DataFrame({name: winners[f"dim_{name}"] - losers[f"dim_{name}"] for name in sorted(DIMENSIONS)})
        assert (gaps.min(axis=1) >= -1e-9).all() == (recipe == "mpo" or bool(pairs["dominates"].all()))


def test_the_report_has_no_section_on_questions(run: tuple[Path, str]) -> None:
    page = (run[0] / "data/08_reporting/evaluation_report.html").read_text(encoding="utf-8")
    sections = set(re.findall(r'<section[^>]* id="(\w+)"', page))
    assert {"summary", "clips", "rewards", "wins", "pairs", "training"} <= sections
    assert not {"weights", "people", "disagreement", "comparisons"} & sections
    assert "Answers of the judge" not in page
    assert "videoreward, identity" in page


def test_a_policy_says_what_judged_its_checkpoints(run: tuple[Path, str]) -> None:
    metrics = json.loads((run[0] / "data/08_reporting/evaluation_metrics.json").read_text())
    for recipe in ("dpo", "mpo"):
        card = (run[0] / f"data/06_models/policy_{recipe}/README.md").read_text(encoding="utf-8")
        assert metrics["reward"]["identity"] in card
        log = pd.read_parquet(run[0] / f"data/06_models/validation_log_{recipe}.parquet")
        assert log["chosen"].sum() == 1
        assert {f"dim_{name}" for name in DIMENSIONS} <= set(log)
    assert "mpo against original, judge reward" in run[1]
