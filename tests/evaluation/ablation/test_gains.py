"""Gains over the original and between combinations, and what is shown of them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vr_pipeline.evaluation.ablation.config import AblationParameters, trainings_of
from vr_pipeline.evaluation.ablation.gains import ablation_metrics, gain_table
from vr_pipeline.evaluation.ablation.plot import gains_by_dimension
from vr_pipeline.evaluation.ablation.report import ablation_page
from vr_pipeline.evaluation.metrics import rewards_by_source
from vr_pipeline.schemas import AblationGains, AblationTrainings

PARAMETERS = AblationParameters(objectives={"diffusion_dpo": {}, "mapo": {"loss": "mapo"}}, seeds=[0, 1])
PROMPTS = [f"p{n}" for n in range(8)]
COUNTS = {"dpo": {"n": 9, "dominating": 6, "not_dominating": 3, "trained_on": 6}}


@pytest.fixture
def rewards() -> pd.DataFrame:
    """Two clips a prompt of the original and of every policy but one that failed."""
    random = np.random.default_rng(2)
    tables = []
    for policy in ["original", *(training.name for training in trainings_of(PARAMETERS))]:
        if policy == "mpo.mapo.seed1":
            continue
        table = pd.DataFrame({"prompt_id": PROMPTS * 2, "policy": policy})
        lift = 0.0 if policy == "original" else 1.0 + policy.startswith("mpo")
        table[["dim_a", "dim_b"]] = random.normal(size=(16, 2)) + np.array([lift, 0.0])
        tables.append(
            table.assign(video_id=[f"{policy} {n}" for n in range(16)], total=table["dim_a"] + table["dim_b"])
        )
    return pd.concat(tables, ignore_index=True)


@pytest.fixture
def trainings() -> pd.DataFrame:
    rows = [
        {"policy": t.name, **t._asdict(), "steps": 5, "error": "", "loss": 0.5, "implicit_accuracy": 0.7}
        | {"winner_change": 0.1, "loser_change": 0.2, "gradient_norm": 1.0}
        for t in trainings_of(PARAMETERS)
    ]
    rows[-1] |= {"error": "Training <collapsed>.", "loss": math.nan, "steps": 0}
    return AblationTrainings.validate(pd.DataFrame(rows))


def gains_of(rewards: pd.DataFrame) -> pd.DataFrame:
    return AblationGains.validate(gain_table(rewards_by_source(rewards, rewards.head(0)), PARAMETERS))


def test_the_gain_is_that_of_prompt_means_over_all_seeds_with_students_interval(rewards: pd.DataFrame) -> None:
    table = gains_of(rewards).set_index(["pairs", "objective", "against", "dimension"])
    ours = rewards[rewards["policy"].isin(["mpo.diffusion_dpo.seed0", "mpo.diffusion_dpo.seed1"])]
    means = (
        ours.groupby("prompt_id")["dim_a"].mean()
        - rewards[rewards["policy"] == "original"].groupby("prompt_id")["dim_a"].mean()
    )
    row = table.loc[("mpo", "diffusion_dpo", "original", "a")]
    low, high = stats.t.interval(0.95, 7, means.mean(), stats.sem(means))
    assert row["gain"] == pytest.approx(means.mean())
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(low), pytest.approx(high))
    assert row["seeds"] == 2
    assert row["lowest_seed"] <= row["gain"] <= row["highest_seed"]


def test_a_combination_is_compared_with_the_first_rule_and_the_first_objective(rewards: pd.DataFrame) -> None:
    table = gains_of(rewards)
    against = table.groupby(["pairs", "objective"])["against"].unique().map(set)
    assert against["dpo", "diffusion_dpo"] == {"original"}
    assert against["mpo", "mapo"] == {"original", "dpo.mapo", "mpo.diffusion_dpo"}
    total = table[table["dimension"] == "total"].set_index(["pairs", "objective", "against"])["gain"]
    # Prompts and clips are the same on both sides, so differences of gains are gains.
    assert total["mpo", "diffusion_dpo", "dpo.diffusion_dpo"] == pytest.approx(
        total["mpo", "diffusion_dpo", "original"] - total["dpo", "diffusion_dpo", "original"]
    )


def test_a_failed_training_is_left_out_counted_and_named(rewards: pd.DataFrame, trainings: pd.DataFrame) -> None:
    gains = gains_of(rewards)
    assert set(gains[(gains["pairs"] == "mpo") & (gains["objective"] == "mapo")]["seeds"]) == {1}
    metrics = ablation_metrics(gains, COUNTS, trainings, PARAMETERS)
    assert metrics["trainings"] == {"n": 8, "failed": 1}
    page = ablation_page(gains, COUNTS, trainings, PARAMETERS)
    assert "mpo.mapo.seed1 failed: Training &lt;collapsed&gt;." in page


def test_figures_page_and_picture_show_all_combinations(rewards: pd.DataFrame, trainings: pd.DataFrame) -> None:
    gains = gain_table(rewards_by_source(rewards, rewards.assign(total=rewards["dim_b"])), PARAMETERS)
    metrics = ablation_metrics(gains, COUNTS, trainings, PARAMETERS)
    assert set(metrics["gain"]["mpo"]["diffusion_dpo"]) == {"judge", "oracle"}
    assert set(metrics["gain"]["mpo"]["diffusion_dpo"]["judge"]) == {"total", "a", "b"}
    assert "over.dpo.mapo" in metrics["difference"]["mpo"]["mapo"]
    assert metrics["pairs"] == COUNTS
    page = ablation_page(gains, COUNTS, trainings, PARAMETERS)
    for text in ("diffusion_dpo on dpo pairs", "mapo on mpo pairs", "Gain by the oracle", "Winner dominates"):
        assert text in page
    assert page == ablation_page(gains, COUNTS, trainings, PARAMETERS)
    judge, oracle = gains_by_dimension(gains).axes
    assert [text.get_text() for text in judge.get_legend().get_texts()] == [  # type: ignore[union-attr]
        f"{objective} on {pairs} pairs" for pairs in ("dpo", "mpo") for objective in ("diffusion_dpo", "mapo")
    ]
    assert [label.get_text() for label in oracle.get_xticklabels()] == ["total", "a", "b"]
