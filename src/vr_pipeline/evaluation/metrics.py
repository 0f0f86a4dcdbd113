"""Metrics of policies by the judge of training, and by oracle and auditor if there are any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.agreement import without_nan
from vr_pipeline.statistics.clustered import Gain, WinRate, clustered_mean, paired_gain, simultaneous, win_rate

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist


def rewards_by_source(
    judge: pd.DataFrame, oracle: pd.DataFrame, auditor: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """Return the rewards by source, without empty tables."""
    tables = {"judge": judge, "oracle": oracle, "auditor": auditor}
    return {source: table for source, table in tables.items() if table is not None and len(table)}


def no_oracle(checklist: Checklist) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return empty tables of answers and rewards of the oracle."""
    text, number = pd.Series(dtype=str), pd.Series(dtype=float)
    answers = pd.DataFrame({"video_id": text, "question_id": text, "p_yes": number})
    dimensions = [f"dim_{name}" for name in checklist.dimensions]
    rewards = dict.fromkeys(("video_id", "prompt_id", "policy"), text) | dict.fromkeys(("total", *dimensions), number)
    return answers, pd.DataFrame(rewards)


def policy_metrics(rewards: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return mean and standard error (by prompt, null with one) of total and dimensions, by policy."""

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
    """Return the gain in a column of rewards over other clips of the same prompts, with its interval by prompt."""
    return paired_gain(
        ours[column].to_numpy(),
        ours["prompt_id"].to_numpy(),
        theirs[column].to_numpy(),
        theirs["prompt_id"].to_numpy(),
        level=level,
    )


def gains_over_original(rewards: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the gain of each policy over the original with its 95 % interval by prompt, or ``no_interval``.

    ``effect`` is the gain in standard deviations of the prompts' gains, with its interval.
    """
    return {policy: _with_effect(gain_over(part, original)) for policy, part, original in _trained(rewards)}


def _with_effect(gain: Gain) -> dict[str, Any]:
    effect = zip(("effect", "effect_low", "effect_high"), gain.effect(), strict=True)
    return _record(gain, "mean") | without_nan(dict(effect))


def gains_by_dimension(rewards: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the gains by policy and dimension, with joint intervals for all of them (Bonferroni)."""
    columns = [str(name) for name in rewards.columns if str(name).startswith("dim_")]
    trained = list(_trained(rewards))
    level = simultaneous(len(trained) * len(columns))
    return {
        policy: {name.removeprefix("dim_"): _record(gain_over(part, original, name, level), "mean") for name in columns}
        for policy, part, original in trained
    }


def _trained(rewards: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """Yield the name of each policy, its rewards and those of the original."""
    original = rewards[rewards["policy"] == ORIGINAL]
    for policy, part in rewards.groupby("policy", sort=True):
        if policy != ORIGINAL:
            yield str(policy), part, original


def win_rates(rewards: pd.DataFrame, index: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return how often a policy's clip beats the original's of the same prompt and seed; ties count half.

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


def pairs_confirmed(pairs: pd.DataFrame, rewards: pd.DataFrame) -> dict[str, Any]:
    """Measure how often another reward scores the winner of a pair higher, equal totals counting half.

    Args:
        pairs: winner_video_id, loser_video_id and prompt_id.
        rewards: video_id and total, by the other reward; pairs of other clips are ignored.

    Returns:
        rate with its 95 % interval (prompts as clusters), and the numbers of wins, ties and losses.
    """
    total = rewards.set_index("video_id")["total"]
    difference = pairs["winner_video_id"].map(total) - pairs["loser_video_id"].map(total)
    known = difference.notna()
    rate = win_rate(difference[known].to_numpy(), pairs["prompt_id"][known].to_numpy())
    return _record(rate, "rate", "wins", "ties", "losses")


def _record(result: Gain | WinRate, *names: str) -> dict[str, Any]:
    """Return the named values and the interval, or the reason for its absence."""
    record = result.to_json()
    return {name: record[name] for name in (*names, "ci_low", "ci_high", "no_interval") if name in record}


def judge_oracle_agreement(judge: pd.DataFrame, oracle: pd.DataFrame) -> dict[str, Any]:
    """Return the share of equal answers of judge and oracle, overall and by question; empty without oracle."""
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
    *,
    auditor_rewards: pd.DataFrame | None = None,
    audit: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return all metrics, in the layout of data/08_reporting/evaluation_metrics.json.

    Args:
        judge_rewards: rewards by the judge, with policy; empty without a reward.
        oracle_rewards: the same by the oracle; may be empty.
        same_answers: result of :func:`judge_oracle_agreement`.
        index: video index of the clips.
        agreement: tau, diff, epsilon, n, n_ties on held-out human preferences; None if not measured.
        pairs: selected pairs by strategy.
        auditor_rewards: rewards by the auditor; may be empty.
        audit: :func:`pairs_confirmed` by the auditor, by strategy.
    """
    sources = rewards_by_source(judge_rewards, oracle_rewards, auditor_rewards)
    by_source = {source: policy_metrics(table) for source, table in sources.items()}
    gains = {source: gains_over_original(table) for source, table in sources.items()}
    by_dimension = {source: gains_by_dimension(table) for source, table in sources.items()}
    wins = {source: win_rates(table, index) for source, table in sources.items()}
    policies = sorted(map(str, index["policy"].unique()), key=lambda name: (name != ORIGINAL, name))
    trained = [name for name in policies if name != ORIGINAL]
    failed = index[index["status"] != "ok"]
    return {
        "policies": {name: {source: by_source[source][name] for source in sources} for name in policies},
        "gain": {name: {source: gains[source][name] for source in sources} for name in trained},
        "gain_by_dimension": {name: {source: by_dimension[source][name] for source in sources} for name in trained},
        "win_rate": {name: {source: wins[source][name] for source in sources} for name in trained},
        "agreement": agreement and {key: agreement[key] for key in ("tau", "diff", "epsilon", "n", "n_ties")},
        "judge_oracle_agreement": dict(same_answers),
        "pairs": {
            strategy: {
                "n": len(table),
                "dominating": int(table["dominates"].sum()),
                "not_dominating": int((~table["dominates"]).sum()),
                **({"confirmed": audit[strategy]} if audit and strategy in audit else {}),
            }
            for strategy, table in sorted(pairs.items())
        },
        "clips": {
            "prompts": int(index["prompt_id"].nunique()),
            "per_policy": int(index.groupby("policy").size().max()),
            "failed": len(failed),
        },
    }


def headline_figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the main figures of :func:`evaluation_metrics`: gains and pairs by policy, agreement with people."""
    figures: dict[str, Any] = {}
    for policy, gains in metrics["gain"].items():
        figures[policy] = {f"gain_{source}": record["mean"] for source, record in gains.items()}
        figures[policy] |= {f"wins_{source}": each["rate"] for source, each in metrics["win_rate"][policy].items()}
        if pairs := metrics["pairs"].get(policy):
            figures[policy]["pairs"] = pairs["n"]
            if confirmed := pairs.get("confirmed"):
                figures[policy]["pairs_confirmed"] = confirmed["rate"]
    if agreement := metrics["agreement"]:
        figures["held_out_preferences"] = {name: agreement[name] for name in ("tau", "diff")}
    return figures
