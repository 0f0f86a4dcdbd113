"""Correlations of score differences with preferences, and all held-out figures of a reward."""

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
    """Return Kendall's tau-b and Spearman's rho of score differences and labels (a 1, tie 0, b -1); NaN if constant.

    Every pair enters in both orders, so that the result does not depend on which clip is A.
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
    """Return all figures of agreement on the held-out pairs, with 95 % intervals by prompt.

    Args:
        scores: prompt_id, preference, split ('fit' or 'held_out'), difference (score of A minus score of B) and, if
            prompts can share clips, video_id_a and video_id_b.
        samples: number of bootstrap replicates, each with its own tie threshold.
        seed: of the replicates.

    Returns:
        tau, diff, epsilon, n, n_ties on the held-out pairs; ``tau_transferred``: tau with the threshold of the fitted
        pairs, so that nothing is chosen on the held-out pairs; kendall, spearman; ``intervals`` of these, null with a
        reason in ``no_interval``; ``fitted``: tau and diff of the fitted pairs.

    Raises:
        InputError: there are no held-out pairs.
    """
    held_out, fitted = scores[scores["split"] == "held_out"], scores[scores["split"] == "fit"]
    if not len(held_out):
        raise InputError(
            "there are no held-out pairs", remedy="Raise held_out_share or give more prompts", field="held_out_share"
        )
    difference = held_out["difference"].to_numpy(dtype=np.float64)
    labels = checked_preference(held_out["preference"].to_numpy(), len(held_out))
    agreement = pairwise_accuracy(difference, labels)
    on_fitted = pairwise_accuracy(fitted["difference"], list(fitted["preference"]))
    # Without fitted pairs there is no threshold to transfer.
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
    # diff uses the pairs without a tie, so their prompts are its units.
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
        f"{n_units} held-out prompts (or groups of prompts with shared clips); an interval needs {MINIMUM_PROMPTS}"
        if n_units < MINIMUM_PROMPTS
        else "no value, no spread over prompts, or too many ties"
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
