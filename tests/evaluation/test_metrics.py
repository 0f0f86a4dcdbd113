"""Metrics of an evaluation that was worked out by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.evaluation.metrics import (
    evaluation_metrics,
    gains_over_original,
    headline_figures,
    judge_oracle_agreement,
    no_oracle,
    policy_metrics,
    win_rates,
)
from vr_pipeline.schemas import EvaluationRewards, OracleAnswers


def rewards() -> pd.DataFrame:
    """Two prompts, two samples of each of two policies."""
    rows = [
        # policy, prompt, sample, total (original: means 2 and 4; mpo: means 3 and 6)
        ("original", "p1", 0, 1.0),
        ("original", "p1", 1, 3.0),
        ("original", "p2", 0, 4.0),
        ("original", "p2", 1, 4.0),
        ("mpo", "p1", 0, 4.0),
        ("mpo", "p1", 1, 2.0),
        ("mpo", "p2", 0, 4.0),
        ("mpo", "p2", 1, 8.0),
    ]
    table = pd.DataFrame(rows, columns=["policy", "prompt_id", "sample_index", "total"])
    table["video_id"] = [f"v{row}" for row in range(8)]
    table["dim_quality"] = table["total"] / 2
    return table


def index() -> pd.DataFrame:
    return rewards()[["video_id", "prompt_id", "sample_index", "policy"]].assign(status="ok", prompt="text")


def judged() -> pd.DataFrame:
    return rewards().drop(columns="sample_index")


def test_means_and_standard_errors_by_prompt() -> None:
    metrics = policy_metrics(judged())
    assert metrics["original"]["total"]["mean"] == 3.0
    # Residuals of the prompts sum to -2 and 2: sqrt(2 / 1 * (4 + 4)) / 4.
    assert metrics["original"]["total"]["se"] == pytest.approx(1.0)
    assert metrics["mpo"]["total"]["mean"] == 4.5
    assert metrics["mpo"]["total"]["se"] == pytest.approx(math.sqrt(2 * (9 + 9)) / 4)
    assert metrics["mpo"]["dimensions"] == {
        "quality": {"mean": pytest.approx(2.25), "se": pytest.approx(math.sqrt(2 * (9 + 9)) / 8)}
    }
    assert policy_metrics(judged().query("prompt_id == 'p1'"))["mpo"]["total"]["se"] is None


def test_gain_and_its_interval_by_prompt() -> None:
    few = gains_over_original(judged())
    assert list(few) == ["mpo"]
    no_effect = dict.fromkeys(("effect", "effect_low", "effect_high"))
    nothing = {"ci_low": None, "ci_high": None, "no_interval": "2 prompts; an interval needs 5"}
    assert few["mpo"] == {"mean": 1.5} | nothing | no_effect
    # Five prompts that gain 1, 2, 3, 4 and 5: the standard error is sqrt(2.5 / 5), the quantile of t 2.776.
    rows = [
        {"policy": policy, "prompt_id": f"p{i}", "total": gain * (policy == "mpo")}
        for i, gain in enumerate([1.0, 2.0, 3.0, 4.0, 5.0])
        for policy in ("original", "mpo")
    ]
    gain = gains_over_original(pd.DataFrame(rows))["mpo"]
    half = 2.7764451051977987 * math.sqrt(2.5 / 5)
    assert (gain["mean"], gain["ci_low"], gain["ci_high"]) == pytest.approx((3.0, 3 - half, 3 + half))
    assert gain["effect"] == pytest.approx(3 / math.sqrt(2.5))
    assert 0 < gain["effect_low"] < gain["effect"] < gain["effect_high"]
    alike = pd.DataFrame(rows).assign(total=0.0)
    assert gains_over_original(alike)["mpo"]["no_interval"] == "prompts do not differ"


def test_win_rate_compares_clips_of_the_same_seed() -> None:
    # Against the original's clip of the same seed: won, lost, tied, won.
    rate = win_rates(judged(), index())["mpo"]
    assert rate["rate"] == pytest.approx(2.5 / 4)
    assert (rate["wins"], rate["ties"], rate["losses"]) == (2, 1, 1)
    shuffled = judged().sample(frac=1, random_state=0)
    assert win_rates(shuffled, index()) == win_rates(judged(), index())
    # A clip without a counterpart is left out: the lost comparison goes.
    without = judged()[judged()["video_id"] != "v5"]
    assert win_rates(without, index())["mpo"]["rate"] == pytest.approx(2.5 / 3)


def test_agreement_of_judge_and_oracle() -> None:
    names = {"video_id": ["v0", "v0", "v1", "v1"], "question_id": ["sharp", "fast", "sharp", "fast"]}
    judge = pd.DataFrame({**names, "p_yes": [0.9, 0.4, 0.2, 0.51]})
    oracle = pd.DataFrame({**names, "p_yes": [0.6, 0.9, 0.5, 0.7]}).iloc[::-1]
    assert judge_oracle_agreement(judge, oracle) == {"overall": 0.75, "questions": {"fast": 0.5, "sharp": 1.0}}
    assert judge_oracle_agreement(judge, oracle.iloc[:0]) == {}


def test_everything_in_the_layout_of_the_metrics_file() -> None:
    answers = pd.DataFrame({"video_id": ["v0"], "question_id": ["sharp"], "p_yes": [0.9]})
    agreement = {"tau": 0.7, "diff": 0.8, "epsilon": 0.1, "n": 10, "n_ties": 2, "further": 1}
    pairs = {
        "mpo": pd.DataFrame({"dominates": [True, True]}),
        "dpo": pd.DataFrame({"dominates": [True, False, False]}),
    }
    arguments = {
        "judge_rewards": judged(),
        "index": pd.concat([index(), index().iloc[:1].assign(video_id="broken", status="failed")]),
        "agreement": agreement,
        "pairs": pairs,
    }
    metrics = evaluation_metrics(
        oracle_rewards=judged(), same_answers=judge_oracle_agreement(answers, answers), **arguments
    )
    assert list(metrics["policies"]) == ["original", "mpo"]
    assert metrics["policies"]["mpo"]["oracle"]["total"]["mean"] == 4.5
    assert metrics["gain"]["mpo"]["judge"]["mean"] == pytest.approx(1.5)
    by_dimension = metrics["gain_by_dimension"]["mpo"]["judge"]
    assert {name: gain["mean"] for name, gain in by_dimension.items()} == {
        name: pytest.approx(metrics["policies"]["mpo"]["judge"]["dimensions"][name]["mean"] - original["mean"])
        for name, original in metrics["policies"]["original"]["judge"]["dimensions"].items()
    }
    assert headline_figures(metrics) == {
        "mpo": {f"gain_{source}": metrics["gain"]["mpo"][source]["mean"] for source in ("judge", "oracle")}
        | {f"wins_{source}": metrics["win_rate"]["mpo"][source]["rate"] for source in ("judge", "oracle")}
        | {"pairs": 2},
        "held_out_preferences": {"tau": 0.7, "diff": 0.8},
    }
    assert metrics["agreement"] == {"tau": 0.7, "diff": 0.8, "epsilon": 0.1, "n": 10, "n_ties": 2}
    assert metrics["pairs"] == {
        "dpo": {"n": 3, "dominating": 1, "not_dominating": 2},
        "mpo": {"n": 2, "dominating": 2, "not_dominating": 0},
    }
    assert metrics["clips"]["failed"] == 1
    assert metrics["clips"]["prompts"] == 2
    assert metrics["judge_oracle_agreement"]["overall"] == 1.0
    # Without an oracle its part is absent, not zero.
    alone = evaluation_metrics(oracle_rewards=judged().iloc[:0], same_answers={}, **arguments)
    assert set(alone["policies"]["mpo"]) == {"judge"}
    assert set(alone["gain"]["mpo"]) == {"judge"}
    assert alone["judge_oracle_agreement"] == {}


def test_without_an_oracle_the_tables_are_empty_and_valid() -> None:
    question = {"id": "a", "text": "is it a"}
    names = [
        {"name": name, "sub_dimensions": [{"name": name, "questions": [question | {"id": name}]}]} for name in "xy"
    ]
    answers, rewarded = no_oracle(checklist_from_mapping({"name": "c", "modality": "video", "dimensions": names}))
    assert OracleAnswers.validate(answers).empty
    assert EvaluationRewards.validate(rewarded).empty
    assert {"dim_x", "dim_y"} <= set(rewarded.columns)
