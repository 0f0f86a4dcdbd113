"""Correlations of score differences with preferences, and all held-out figures of a reward in one report."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.agreement import pairwise_accuracy
from vr_pipeline.rewards.linear import checked_preference
from vr_pipeline.rewards.statistics import bootstrap_by_prompt


def preference_correlations(difference: npt.ArrayLike, preference: npt.ArrayLike) -> dict[str, float]:
    """Kendall's tau-b and Spearman's rho between score differences and labels (a 1, tie 0, b -1); NaN if constant.

    Exchanging the clips of a pair changes the sign of both, so every pair enters in both orders: the result does not
    depend on which clip was called A.
    """
    from scipy.stats import kendalltau, spearmanr

    values = np.asarray(difference, dtype=np.float64)
    labels = checked_preference(preference, len(values))
    level = (labels == "a").astype(np.float64) - (labels == "b")
    x, y = np.r_[values, -values], np.r_[level, -level]
    if len(values) == 0 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"kendall": math.nan, "spearman": math.nan}
    return {"kendall": float(kendalltau(x, y).statistic), "spearman": float(spearmanr(x, y).statistic)}


def held_out_agreement(scores: pd.DataFrame, *, samples: int = 500, seed: int = 0) -> dict[str, Any]:
    """Every figure of agreement on the held-out pairs, with 95 % intervals by prompt.

    Args:
        scores: prompt_id, preference, split ('fit' or 'held_out') and difference (score of A minus score of B).
        samples: bootstrap replicates; every replicate calibrates its own tie threshold.
        seed: of the bootstrap.

    Returns:
        tau, diff, epsilon, n, n_ties on the held-out pairs; ``tau_transferred``: the same with the threshold of the
        fitted pairs, so that nothing at all was chosen on the pairs reported; kendall, spearman; ``intervals`` of
        these; ``fitted``: tau and diff of the pairs the weights were fitted on, for comparison.

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
    transferred = pairwise_accuracy(difference, labels, epsilon=on_fitted.epsilon).tau

    def figures(rows: npt.NDArray[np.int64]) -> list[float]:
        part = pairwise_accuracy(difference[rows], labels[rows])
        fixed = pairwise_accuracy(difference[rows], labels[rows], epsilon=on_fitted.epsilon).tau
        return [part.tau, part.diff, fixed, *preference_correlations(difference[rows], labels[rows]).values()]

    names = ("tau", "diff", "tau_transferred", "kendall", "spearman")
    low, high = bootstrap_by_prompt(figures, list(held_out["prompt_id"]), samples=samples, seed=seed)
    return {
        **agreement.to_json(),
        "tau_transferred": transferred,
        "epsilon_transferred": on_fitted.epsilon,
        **{name: _none(value) for name, value in preference_correlations(difference, labels).items()},
        "n_prompts": int(held_out["prompt_id"].nunique()),
        "intervals": {name: [_none(low[i]), _none(high[i])] for i, name in enumerate(names)},
        "fitted": on_fitted.to_json(),
    }


def _none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
