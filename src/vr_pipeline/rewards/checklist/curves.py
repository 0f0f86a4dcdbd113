"""Held-out accuracy by number of questions (VisionReward, Figure 5), and calibration."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.linear import encode
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.statistics.clustered import clustered_mean, interval, win_rate
from vr_pipeline.statistics.labels import checked_preference

_KEYS = ("n_questions", "weighting", "last_question")


def calibration(
    difference: npt.ArrayLike,
    preference: Sequence[str] | npt.ArrayLike,
    prompts: Sequence[str] | npt.ArrayLike | None = None,
    bins: int = 10,
) -> tuple[pd.DataFrame, float]:
    """Compare predicted and observed probabilities of preferences, in equally filled bins.

    Each pair enters in both orders, so the curve is symmetric about one half.

    Args:
        difference: reward of A minus reward of B, of pairs without ties; its sigmoid is the prediction.
        preference: 'a' or 'b'.
        prompts: prompt of each pair, the unit of the 95 % intervals; every pair is a unit without it.
        bins: largest number of bins.

    Returns:
        one row per bin: predicted, observed with ci_low and ci_high; and the Brier score, NaN without pairs.
    """
    values = np.asarray(difference, dtype=np.float64)
    labels = checked_preference(preference, len(values))
    columns = ["predicted", "observed", "ci_low", "ci_high"]
    if not len(values):
        return pd.DataFrame(columns=columns, dtype=np.float64), math.nan
    probability = 1.0 / (1.0 + np.exp(-np.r_[values, -values]))
    chosen = np.r_[labels == "a", labels == "b"].astype(np.float64)
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, min(bins, max(2, len(values) // 5)) + 1)))
    index = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, max(len(edges) - 2, 0))
    # Both orders of a pair are one observation: they share a cluster.
    units = np.tile(np.arange(len(values)) if prompts is None else np.asarray(prompts), 2)
    rows = []
    for i in np.unique(index):
        own = index == i
        rate = win_rate(chosen[own] - 0.5, units[own])
        rows.append((probability[own].mean(), chosen[own].mean(), rate.ci_low, rate.ci_high))
    return pd.DataFrame(rows, columns=columns), float(np.mean((probability - chosen) ** 2))


def answer_correlation(answers: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the correlation of answers over clips, [questions, questions]; NaN for constant answers.

    Args:
        answers: array [clips, questions]; NaN where gated (counts 0).
    """
    values = np.nan_to_num(np.asarray(answers, dtype=np.float64), nan=0.0)
    centred = values - values.mean(axis=0)
    scale = np.sqrt((centred**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation: npt.NDArray[np.float64] = (centred.T @ centred) / np.outer(scale, scale)
    return correlation


def accuracy_curve(
    fit_a: npt.ArrayLike,
    fit_b: npt.ArrayLike,
    fit_preference: Sequence[str] | npt.ArrayLike,
    held_out_a: npt.ArrayLike,
    held_out_b: npt.ArrayLike,
    held_out_preference: Sequence[str] | npt.ArrayLike,
    held_out_prompts: Sequence[str] | npt.ArrayLike,
    weights: RewardWeights,
) -> pd.DataFrame:
    """Return the held-out accuracy with the k most important questions, for every k.

    The importance of a question is its weight times the standard deviation of its difference over the fitting pairs.

    Args:
        fit_a, fit_b, fit_preference: fitting pairs, arrays [pairs, questions] and labels.
        held_out_a, held_out_b, held_out_preference, held_out_prompts: held-out pairs and their prompts.
        weights: the fitted weights.

    Returns:
        One row per number of questions and weighting: ``n_questions``, ``weighting`` (``learned``: other weights
        masked, as in the paper; ``refitted``: fitted with these questions only; ``equal``: all weights 1),
        ``last_question`` (the one added), ``diff`` (accuracy without human ties) with ``diff_se``, ``ci_low`` and
        ``ci_high`` (95 %, by prompt), ``tau``.
    """
    difference = encode(fit_a, weights.encoding) - encode(fit_b, weights.encoding)
    tested = encode(held_out_a, weights.encoding) - encode(held_out_b, weights.encoding)
    labels = np.asarray(held_out_preference).astype(str)
    prompts = np.asarray(held_out_prompts)
    importance = weights.weights * difference.std(axis=0)
    order = np.lexsort((np.arange(len(importance)), -np.abs(importance)))
    order = order[np.abs(importance[order]) > 0]
    rows = []
    for count in range(1, len(order) + 1):
        kept = order[:count]
        refitted = fit_weights(
            np.asarray(fit_a)[:, kept],
            np.asarray(fit_b)[:, kept],
            fit_preference,
            nonnegative=bool((weights.weights >= 0).all()),
            encoding=weights.encoding,
            penalty=float(weights.statistics.get("penalty", 1e-3)),
            bootstrap_samples=0,
        )
        kinds = {"learned": weights.weights[kept], "refitted": refitted.weights, "equal": np.ones(count)}
        for weighting, values in kinds.items():
            key = {"n_questions": count, "weighting": weighting, "last_question": weights.question_ids[kept[-1]]}
            rows.append(key | _accuracies((tested[:, kept] * values).sum(axis=1), labels, prompts))
    return pd.DataFrame(rows, columns=[*_KEYS, "diff", "diff_se", "ci_low", "ci_high", "tau"])


def _accuracies(difference: npt.NDArray[np.float64], labels: npt.NDArray[np.str_], prompts: npt.NDArray) -> dict:
    agreement = pairwise_accuracy(difference, labels)
    decided = labels != "tie"
    right = ((difference > 0) & (labels == "a")) | ((difference < 0) & (labels == "b"))
    estimate = clustered_mean(right[decided].astype(float), prompts[decided])
    low, high = interval(agreement.diff, estimate.se, estimate.n_prompts, kind="share", n=estimate.n)
    return {"diff": agreement.diff, "diff_se": estimate.se, "ci_low": low, "ci_high": high, "tau": agreement.tau}
