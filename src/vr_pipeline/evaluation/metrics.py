"""Numbers that say whether a policy is better: by the judge it was trained with, and by an oracle where one exists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import Gain, WinRate, clustered_mean, paired_gain, win_rate

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist


def no_oracle(checklist: Checklist) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the oracle's tables of answers and rewards where there is no oracle: empty."""
    text, number = pd.Series(dtype=str), pd.Series(dtype=float)
    answers = pd.DataFrame({"video_id": text, "question_id": text, "p_yes": number})
    dimensions = [f"dim_{name}" for name in checklist.dimensions]
    rewards = dict.fromkeys(("video_id", "prompt_id", "policy"), text) | dict.fromkeys(("total", *dimensions), number)
    return answers, pd.DataFrame(rewards)


def policy_metrics(rewards: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return mean and standard error (clustered by prompt, null with one) of total and dimension rewards, by policy."""

    def summary(part: pd.DataFrame, column: str) -> dict[str, Any]:
        mean = clustered_mean(part[column].to_numpy(), part["prompt_id"].to_numpy())
        return {"mean": mean.mean, "se": mean.to_json()["se"]}

    dimensions = [name for name in rewards.columns if name.startswith("dim_")]
    return {
        str(policy): {
            "total": summary(part, "total"),
            "dimensions": {name.removeprefix("dim_"): summary(part, name) for name in dimensions},
        }
        for policy, part in rewards.groupby("policy", sort=True)
    }


def gain_over(ours: pd.DataFrame, theirs: pd.DataFrame, column: str = "total", level: float = 0.95) -> Gain:
    """Measure the gain in a column of rewards over other clips of the same prompts, with its interval by prompt."""
    return paired_gain(
        ours[column].to_numpy(),
        ours["prompt_id"].to_numpy(),
        theirs[column].to_numpy(),
        theirs["prompt_id"].to_numpy(),
        level=level,
    )


def gains_over_original(rewards: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the gain of each policy over the original, 95 % interval by prompt, or ``no_interval`` with the reason."""
    original = rewards[rewards["policy"] == ORIGINAL]
    return {
        str(policy): _record(gain_over(part, original), "mean")
        for policy, part in rewards.groupby("policy", sort=True)
        if policy != ORIGINAL
    }


def win_rates(rewards: pd.DataFrame, index: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Count how often the clip of a policy beats the original's of the same prompt and seed, ties counting half.

    Returns:
        policy -> rate with its 95 % interval (prompts as clusters), and the numbers of wins, ties and losses.
    """
    table = rewards.merge(index[["video_id", "sample_index"]], on="video_id", suffixes=("_", ""))
    wide = table.pivot_table(index=["prompt_id", "sample_index"], columns="policy", values="total").dropna()
    rates = {}
    for policy in sorted(set(wide.columns) - {ORIGINAL}):
        rate = win_rate((wide[policy] - wide[ORIGINAL]).to_numpy(), wide.index.get_level_values("prompt_id").to_numpy())
        rates[str(policy)] = _record(rate, "rate", "wins", "ties", "losses")
    return rates


def _record(result: Gain | WinRate, *names: str) -> dict[str, Any]:
    """Return these values and the interval, or the reason why there is none."""
    record = result.to_json()
    return {name: record[name] for name in (*names, "ci_low", "ci_high", "no_interval") if name in record}


def judge_oracle_agreement(judge: pd.DataFrame, oracle: pd.DataFrame) -> dict[str, Any]:
    """Return the share of equal answers of judge and oracle, over all and by question; empty without an oracle."""
    both = judge[["video_id", "question_id", "p_yes"]].merge(
        oracle, on=["video_id", "question_id"], suffixes=("_judge", "_oracle")
    )
    if both.empty:
        return {}
    same = (both["p_yes_judge"] > 0.5) == (both["p_yes_oracle"] > 0.5)
    return {
        "overall": float(same.mean()),
        "questions": {str(name): float(value) for name, value in same.groupby(both["question_id"]).mean().items()},
    }


def evaluation_metrics(
    judge_rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
    same_answers: Mapping[str, Any],
    index: pd.DataFrame,
    agreement: Mapping[str, Any] | None,
    pairs: Mapping[str, pd.DataFrame],
) -> dict[str, Any]:
    """Return everything the evaluation found, in the layout of data/08_reporting/evaluation_metrics.json.

    Args:
        judge_rewards: rewards by the judge, with policy; empty where no reward judges clips.
        oracle_rewards: the same by the oracle; may be empty.
        same_answers: result of :func:`judge_oracle_agreement`.
        index: video index of the clips.
        agreement: tau, diff, epsilon, n, n_ties on held-out human preferences; None where it was not measured.
        pairs: selected pairs by strategy.
    """
    sources = {name: table for name, table in (("judge", judge_rewards), ("oracle", oracle_rewards)) if len(table)}
    by_source = {source: policy_metrics(table) for source, table in sources.items()}
    gains = {source: gains_over_original(table) for source, table in sources.items()}
    wins = {source: win_rates(table, index) for source, table in sources.items()}
    policies = sorted(map(str, index["policy"].unique()), key=lambda name: (name != ORIGINAL, name))
    trained = [name for name in policies if name != ORIGINAL]
    failed = index[index["status"] != "ok"]
    return {
        "policies": {name: {source: by_source[source][name] for source in sources} for name in policies},
        "gain": {name: {source: gains[source][name] for source in sources} for name in trained},
        "win_rate": {name: {source: wins[source][name] for source in sources} for name in trained},
        "agreement": agreement and {key: agreement[key] for key in ("tau", "diff", "epsilon", "n", "n_ties")},
        "judge_oracle_agreement": dict(same_answers),
        "pairs": {
            strategy: {
                "n": len(table),
                "dominating": int(table["dominates"].sum()),
                "not_dominating": int((~table["dominates"]).sum()),
            }
            for strategy, table in sorted(pairs.items())
        },
        "clips": {
            "prompts": int(index["prompt_id"].nunique()),
            "per_policy": int(index.groupby("policy").size().max()),
            "failed": len(failed),
        },
    }
