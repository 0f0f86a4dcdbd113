"""Means by policy and dimension with intervals by prompt, as in Table 3 of VisionReward."""

from __future__ import annotations

import math

import pandas as pd

from vr_pipeline.evaluation.metrics import gain_over
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import clustered_mean

COLUMNS = (
    *("suite", "dimension", "policy", "mean", "ci_low", "ci_high"),
    *("gain", "gain_low", "gain_high", "prompts", "shared_prompts", "clips"),
)


def suite_table(scores: pd.DataFrame, baseline: str = ORIGINAL) -> pd.DataFrame:
    """Return the mean of every policy in every dimension, and its gain over the baseline on shared prompts.

    Args:
        scores: from :mod:`vr_pipeline.evaluation.suites.results`.
        baseline: the policy to compare with.

    Returns:
        one row per policy and dimension of a suite; without scores, figures are null and counts 0. Intervals are 95 %,
        Student's t by prompt. There is no total, since public totals count a missing dimension as 0.
    """
    rows = []
    for suite, of_suite in scores.groupby("suite", sort=True):
        names = sorted(set(of_suite["policy"]), key=lambda name: (name != baseline, name))
        for dimension in sorted(set(of_suite["dimension"])):
            of_dimension = of_suite[of_suite["dimension"] == dimension]
            theirs = of_dimension[of_dimension["policy"] == baseline]
            for name in names:
                ours = of_dimension[of_dimension["policy"] == name]
                row = {"suite": suite, "dimension": dimension, "policy": name}
                rows.append(row | _mean(ours) | (_gain(ours, theirs) if name != baseline else _NO_GAIN))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({name: "Float64" for name in COLUMNS if table[name].dtype == object and name not in _NAMES})


_NAMES = ("suite", "dimension", "policy")
_NO_GAIN = {"gain": None, "gain_low": None, "gain_high": None, "shared_prompts": 0}


def _mean(ours: pd.DataFrame) -> dict[str, float | int | None]:
    if not len(ours):
        return {"mean": None, "ci_low": None, "ci_high": None, "prompts": 0, "clips": 0}
    mean = clustered_mean(ours["score"].to_numpy(), ours["prompt_id"].to_numpy())
    ends = {"mean": mean.mean, "ci_low": _known(mean.ci_low), "ci_high": _known(mean.ci_high)}
    return {**ends, "prompts": ours["prompt_id"].nunique(), "clips": len(ours)}


def _gain(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, float | int | None]:
    shared = set(ours["prompt_id"]) & set(theirs["prompt_id"])
    if not shared:
        return dict(_NO_GAIN)
    ours, theirs = (side[side["prompt_id"].isin(shared)] for side in (ours, theirs))
    gain = gain_over(ours, theirs, "score")
    ends = {"gain": gain.mean, "gain_low": _known(gain.ci_low), "gain_high": _known(gain.ci_high)}
    return {**ends, "shared_prompts": len(shared)}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
