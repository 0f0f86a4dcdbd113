"""Correlations of score differences with preferences, and all held-out figures of a reward in one report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.statistics.agreement import check_finite, pairwise_accuracy, without_nan
from vr_pipeline.statistics.clustered import MINIMUM_PROMPTS, bootstrap_by_prompt, linked_prompts
from vr_pipeline.statistics.labels import checked_preference


def preference_correlations(difference: npt.ArrayLike, preference: npt.ArrayLike) -> dict[str, float]:
    """Kendall's tau-b and Spearman's rho between score differences and labels (a 1, tie 0, b -1); NaN if constant.

    Exchanging the clips of a pair changes the sign of both, so every pair enters in both orders: the result does not
    depend on which clip was called A.
    """
    from scipy.stats import kendalltau, spearmanr

    values = np.asarray(difference, dtype=np.float64)
    labels = checked_preference(preference, len(values))
    check_finite(values)
    level = (labels == "a").astype(np.float64) - (labels == "b")
    x, y = np.r_[values, -values], np.r_[level, -level]
    if len(values) == 0 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"kendall": math.nan, "spearman": math.nan}
    return {"kendall": float(kendalltau(x, y).statistic), "spearman": float(spearmanr(x, y).statistic)}


def held_out_agreement(scores: pd.DataFrame, *, samples: int = 500, seed: int = 0) -> dict[str, Any]:
    """Every figure of agreement on the held-out pairs, with 95 % intervals by prompt.

    Args:
        scores: prompt_id, preference, split ('fit' or 'held_out'), difference (score of A minus score of B) and, where
            prompts may share clips, video_id_a and video_id_b.
        samples: bootstrap replicates; every replicate calibrates its own tie threshold.

    Returns:
        tau, diff, epsilon, n, n_ties on the held-out pairs; ``tau_transferred``: the same with the threshold of the
        fitted pairs, so that nothing at all was chosen on the pairs reported; kendall, spearman; ``intervals`` of
        these, null where there is none, with the reason in ``no_interval``; ``fitted``: tau and diff of the pairs the
        weights were fitted on, for comparison.

    Raises:
        InputError: no held-out pairs.
    """
    held_out, fitted = scores[scores["split"] == "held_out"], scores[scores["split"] == "fit"]
    if not len(held_out):
        raise InputError(
            "no pairs are held out", remedy="Raise held_out_share or give more prompts", field="held_out_share"
        )
    difference = held_out["difference"].to_numpy(dtype=np.float64)
    labels = checked_preference(held_out["preference"].to_numpy(), len(held_out))
    agreement = pairwise_accuracy(difference, labels)
    on_fitted = pairwise_accuracy(fitted["difference"], list(fitted["preference"]))
    # A threshold that was chosen on nothing says nothing.
    threshold = on_fitted.epsilon if on_fitted.n else None
    units = held_out["prompt_id"].to_numpy(dtype=str)
    if {"video_id_a", "video_id_b"} <= set(held_out.columns):
        units = linked_prompts(units, held_out["video_id_a"].to_numpy(), held_out["video_id_b"].to_numpy())

    def figures(rows: npt.NDArray[np.int64]) -> list[float]:
        d, y = difference[rows], labels[rows]
        fixed = math.nan if threshold is None else pairwise_accuracy(d, y, epsilon=threshold).tau
        return [pairwise_accuracy(d, y).tau, fixed, *preference_correlations(d, y).values()]

    names = ("tau", "tau_transferred", "kendall", "spearman")
    values = dict(zip(names, figures(np.arange(len(labels))), strict=True))
    ends = bootstrap_by_prompt(
        figures, units, kinds=("share", "share", "correlation", "correlation"), samples=samples, seed=seed
    )
    intervals = dict(zip(names, ends.T.tolist(), strict=True))
    # diff is about the pairs without a tie, so their prompts are its units.
    decided = np.flatnonzero(labels != "tie")
    intervals["diff"] = bootstrap_by_prompt(
        lambda rows: pairwise_accuracy(difference[decided[rows]], labels[decided[rows]]).diff,
        units[decided],
        kinds=("share",),
        samples=samples,
        seed=seed,
    ).tolist()
    n_units = len(np.unique(units))
    missing = [name for name, pair in intervals.items() if math.isnan(pair[0])]
    reason = (
        f"{n_units} prompts (or groups of prompts that share clips) are held out, an interval takes {MINIMUM_PROMPTS}"
        if n_units < MINIMUM_PROMPTS
        else "no value, no spread over prompts, or prompts that mostly tie"
    )
    found = without_nan(values)
    return {
        **agreement.to_json(),
        "tau_transferred": found["tau_transferred"],
        "epsilon_transferred": threshold,
        "kendall": found["kendall"],
        "spearman": found["spearman"],
        "n_prompts": int(held_out["prompt_id"].nunique()),
        "intervals": {name: [None if math.isnan(end) else end for end in pair] for name, pair in intervals.items()},
        "no_interval": dict.fromkeys(missing, reason) if samples else {},
        "fitted": on_fitted.to_json(),
    }
