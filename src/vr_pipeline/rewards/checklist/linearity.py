"""Whether people's preferences are linear in the checklist's questions, as the reward assumes.

A test of the form of a regression (Ramsey 1969, RESET), on held-out pairs: squares and products of the rewards of
dimensions are added to the logistic model of preferences. If they predict held-out preferences better, no weights of
the questions can be right, and the reward's agreement stays below what people's own noise allows.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.statistics.clustered import clustered_mean
from vr_pipeline.statistics.labels import FloatArray

_PENALTY = 1e-4
"""L2 penalty per pair of both models; terms have unit variance. A strong one would shrink the smaller model more."""

_FEWEST = 20
"""Pairs without ties that a side needs."""


def linearity(
    answers: tuple[FloatArray, FloatArray],
    rewards: tuple[FloatArray, FloatArray],
    pairs: pd.DataFrame,
    units: list[str] | None = None,
) -> dict[str, Any] | None:
    """Measure how much better products of dimensions predict held-out preferences.

    Args:
        answers: encoded answers on the first and on the second clip of every pair, each [pairs, questions].
        rewards: their rewards by dimension, each [pairs, dimensions].
        pairs: preference, split ('fit' or 'held_out') and prompt_id.
        units: what is drawn, [pairs]: prompts if not given.

    Returns:
        ``gain``: mean fall of the log-loss (nats per pair) by the products, with its 95 % interval by prompt;
        ``diff_linear`` and ``diff_products``: share of held-out pairs without a tie that each model orders correctly;
        ``n``: these pairs. None with too few pairs, or with answers that never vary.
    """
    decided = (pairs["preference"] != "tie").to_numpy()
    fitted, tested = (decided & (pairs["split"] == split).to_numpy() for split in ("fit", "held_out"))
    if min(fitted.sum(), tested.sum()) < _FEWEST:
        return None
    first = (pairs["preference"] == "a").to_numpy()
    loss, right = {}, {}
    linear, products = answers[0] - answers[1], _products(rewards[0]) - _products(rewards[1])
    for name, difference in (("linear", linear), ("products", np.hstack([linear, products]))):
        # No intercept: exchanging the clips of a pair changes every sign.
        scale = np.sqrt((difference[fitted] ** 2).mean(axis=0))
        difference = difference[:, scale > 1e-12] / scale[scale > 1e-12]
        if not difference.shape[1]:
            return None
        margin = difference @ _fit(difference[fitted], first[fitted])
        signed = np.where(first, margin, -margin)[tested]
        loss[name], right[name] = np.logaddexp(0.0, -signed), signed > 0
    names = pairs["prompt_id"].to_numpy() if units is None else np.asarray(units)
    gain = clustered_mean(loss["linear"] - loss["products"], names[tested])
    found = gain.to_json()
    return {
        "gain": found["mean"],
        **{name: found[name] for name in ("ci_low", "ci_high", "n", "no_interval") if name in found},
        "diff_linear": float(right["linear"].mean()),
        "diff_products": float(right["products"].mean()),
    }


def _products(rewards: FloatArray) -> FloatArray:
    places = combinations_with_replacement(range(rewards.shape[1]), 2)
    return np.stack([rewards[:, i] * rewards[:, j] for i, j in places], axis=1)


def _fit(difference: FloatArray, first: np.ndarray) -> FloatArray:
    from sklearn.linear_model import LogisticRegression

    strength = 1.0 / (_PENALTY * len(difference))
    # Both orders of every pair, so that both classes occur; the optimum is that of one order without intercept.
    both = np.vstack([difference, -difference])
    model = LogisticRegression(C=strength / 2, fit_intercept=False, tol=1e-8, max_iter=1000)
    return model.fit(both, np.r_[first, ~first]).coef_[0]
