"""Gains of pair rules and objectives over the original, by dimension, over all seeds (the layout of Table 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from vr_pipeline.evaluation.ablation.config import AblationParameters, Training, trainings_of
from vr_pipeline.evaluation.metrics import gain_over
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import Gain

TOTAL = "total"
COLUMNS = [
    *("pairs", "objective", "source", "dimension", "against", "original", "reward"),
    *("gain", "ci_low", "ci_high", "lowest_seed", "highest_seed", "seeds", "prompts"),
]


def gain_table(sources: Mapping[str, pd.DataFrame], parameters: AblationParameters) -> pd.DataFrame:
    """Return the gains of every combination over the original, and over the first rule and objective.

    Clips of all seeds are pooled. Intervals are 95 %, by prompt; all policies have the same prompts and clip seeds.
    ``lowest_seed`` and ``highest_seed`` show the spread of single trainings.

    Args:
        sources: source -> rewards with ``policy``.
        parameters: the ablation.

    Returns:
        schema ``AblationGains``; ``against`` is ``original``, or another combination ``<pairs>.<objective>``.
        ``original`` and ``reward`` are the mean rewards of both sides.
    """
    rows = [
        row
        for (source, rewards), (rule, objective) in product(
            sources.items(), product(parameters.pair_rules, parameters.objectives)
        )
        for row in _rows(source, rewards, rule, objective, parameters)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _rows(
    source: str, rewards: pd.DataFrame, rule: str, objective: str, parameters: AblationParameters
) -> Iterator[dict[str, Any]]:
    ours = _of(rewards, rule, objective, parameters)
    if not ours:
        return
    first_rule, first_objective = parameters.pair_rules[0], next(iter(parameters.objectives))
    others = {ORIGINAL: [rewards[rewards["policy"] == ORIGINAL]]}
    if rule != first_rule:
        others[f"{first_rule}.{objective}"] = _of(rewards, first_rule, objective, parameters)
    if objective != first_objective:
        others[f"{rule}.{first_objective}"] = _of(rewards, rule, first_objective, parameters)
    columns = [TOTAL, *(name for name in rewards.columns if str(name).startswith("dim_"))]
    for (against, tables), column in product(others.items(), columns):
        if not tables:
            continue
        all_ours, theirs = pd.concat(ours), pd.concat(tables)
        gain = gain_over(all_ours, theirs, column)
        single = [gain_over(table, theirs, column).mean for table in ours]
        yield {
            "pairs": rule,
            "objective": objective,
            "source": source,
            "dimension": column.removeprefix("dim_"),
            "against": against,
            "original": float(theirs[column].mean()),
            "reward": float(all_ours[column].mean()),
            "gain": gain.mean,
            "ci_low": gain.ci_low,
            "ci_high": gain.ci_high,
            "lowest_seed": min(single),
            "highest_seed": max(single),
            "seeds": len(ours),
            "prompts": gain.n_prompts,
        }


def _of(rewards: pd.DataFrame, rule: str, objective: str, parameters: AblationParameters) -> list[pd.DataFrame]:
    """Return the rewards of a combination, one table per successful seed."""
    names = [Training(rule, objective, seed).name for seed in parameters.seeds]
    tables = [rewards[rewards["policy"] == name] for name in names]
    return [table for table in tables if len(table)]


def ablation_metrics(
    gains: pd.DataFrame, counts: Mapping[str, Any], trainings: pd.DataFrame, parameters: AblationParameters
) -> dict[str, Any]:
    """Return all figures as one document.

    Returns:
        ``gain``: <pairs>.<objective>.<source>.<dimension or total> to mean, ci_low, ci_high; ``difference``: the same
        under the other combination (such as ``over.dpo.mapo``); ``pairs``: Table 5; ``trainings``: numbers of all and
        of failed ones.
    """
    found: dict[str, Any] = {"gain": {}, "difference": {}}
    for row in gains.to_dict("records"):
        kind = "gain" if row["against"] == ORIGINAL else "difference"
        place = found[kind].setdefault(row["pairs"], {}).setdefault(row["objective"], {})
        if kind == "difference":
            place = place.setdefault(f"over.{row['against']}", {})
        values = Gain(row["gain"], math.nan, row["ci_low"], row["ci_high"], row["prompts"]).to_json()
        kept = ("mean", "ci_low", "ci_high", "no_interval")
        place.setdefault(row["source"], {})[row["dimension"]] = {name: values[name] for name in kept if name in values}
    failed = int((trainings["error"] != "").sum())
    return {**found, "pairs": dict(counts), "trainings": {"n": len(trainings_of(parameters)), "failed": failed}}


def combinations(gains: pd.DataFrame) -> Sequence[tuple[str, str]]:
    """Return the combinations (pairs, objective) of a table in order."""
    return list(dict.fromkeys(zip(gains["pairs"], gains["objective"], strict=True)))
