"""Accuracy on held-out pairs against the number of questions kept (VisionReward, Figure 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.linear import encode
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.statistics.clustered import clustered_mean, interval

_KEYS = ("n_questions", "weighting", "last_question")


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
    """Accuracy with the k most important questions, for every k.

    A question's importance is its weight times the standard deviation of its difference over the fitted pairs: how much
    it moves the reward. Importance, weights and refits come from the fitted pairs alone; accuracy is measured on the
    held-out ones.

    Args:
        fit_a, fit_b, fit_preference: pairs the weights were fitted on, arrays [pairs, questions] and labels.
        held_out_a, held_out_b, held_out_preference, held_out_prompts: pairs to test on, and their prompts.
        weights: fitted on the former.

    Returns:
        One row a number of questions and way of weighting: ``n_questions``, ``weighting`` (``learned``: the others'
        weights masked, as the paper; ``refitted``: weights fitted with these questions only; ``equal``: weight 1 each),
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
        for weighting, values in (
            ("learned", weights.weights[kept]),
            ("refitted", refitted.weights),
            ("equal", np.ones(count)),
        ):
            rows.append(
                {
                    "n_questions": count,
                    "weighting": weighting,
                    "last_question": weights.question_ids[kept[-1]],
                    **_accuracies((tested[:, kept] * values).sum(axis=1), labels, prompts),
                }
            )
    return pd.DataFrame(rows, columns=[*_KEYS, "diff", "diff_se", "ci_low", "ci_high", "tau"])


def _accuracies(difference: npt.NDArray[np.float64], labels: npt.NDArray[np.str_], prompts: npt.NDArray) -> dict:
    agreement = pairwise_accuracy(difference, labels)
    decided = labels != "tie"
    right = ((difference > 0) & (labels == "a")) | ((difference < 0) & (labels == "b"))
    estimate = clustered_mean(right[decided].astype(float), prompts[decided])
    low, high = interval(agreement.diff, estimate.se, estimate.n_prompts, kind="share", n=estimate.n)
    return {"diff": agreement.diff, "diff_se": estimate.se, "ci_low": low, "ci_high": high, "tau": agreement.tau}
