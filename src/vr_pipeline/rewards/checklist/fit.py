"""Fit of the linear reward: weights of questions from human comparisons of clips.

Source: VisionReward (arXiv 2412.21059), section 3.2, equation 5: a logistic regression without intercept of the
preference on the difference of two clips' answers.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.intervals import weight_intervals
from vr_pipeline.rewards.checklist.linear import encode
from vr_pipeline.rewards.checklist.regression import (
    PairData,
    check_determined,
    choose_penalty,
    edge_of_grid,
    fit_nonnegative,
)
from vr_pipeline.rewards.checklist.weights import AnswerKind, Encoding, RewardWeights
from vr_pipeline.rewards.config import WeightRegressionParameters
from vr_pipeline.statistics.labels import checked_preference

Answers = npt.ArrayLike
Bootstrap = Literal["score", "refit"]
Labels = Sequence[str] | npt.ArrayLike


def fit_weights(
    answers_a: npt.ArrayLike,
    answers_b: npt.ArrayLike,
    preference: Sequence[str] | npt.ArrayLike,
    *,
    nonnegative: bool = True,
    groups: Sequence[str] | npt.ArrayLike | None = None,
    votes: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    question_ids: Sequence[str] | None = None,
    encoding: Encoding = "zero_one",
    answers: AnswerKind = "probability",
    penalty: float | None = None,
    penalties: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    folds: int = 5,
    bootstrap_samples: int = 500,
    bootstrap: Bootstrap = "score",
    seed: int = 0,
    checklist_hash: str = "",
) -> RewardWeights:
    """Fit the weights of the questions to human comparisons; pipelines call :func:`fit_pairs`.

    Minimises mean log(1 + exp(-w . z)) + penalty / 2 |w|^2, with z the answers of the preferred clip minus those of the
    other (VisionReward, equation 5). While a weight is negative, the question with the most negative weight is removed
    and the fit repeated (issue 14 of the authors' repository). The order of pairs and clips does not matter.

    Args:
        answers_a, answers_b: answers on both clips, arrays [pairs, questions]; NaN where gated.
        preference: 'a', 'b' or 'tie', [pairs]; ties are counted, but not fitted.
        nonnegative: remove questions with negative weight.
        groups: prompt of each pair, [pairs]; cross-validation and bootstrap never split it. Without it, every pair is a
            group.
        votes: soft labels, array [pairs, 2]: shares of annotators for A and B, which replace ``preference``; a pair
            without votes for either is not fitted.
        sample_weight: weight of each pair above 0, [pairs]; scaled to a mean of 1 over the fitted pairs.
        question_ids: names of the columns; ``q1``, ``q2``, ... by default.
        encoding: see :func:`encode`.
        answers: kind of the answers, recorded in the result.
        penalty: L2 penalty per pair; None chooses it from ``penalties`` by cross-validation.
        folds: folds of the cross-validation.
        bootstrap_samples: replicates of the bootstrap ``refit``; 0 for no intervals.
        bootstrap: see :func:`vr_pipeline.rewards.checklist.intervals.weight_intervals`.
        seed: of folds and bootstrap.
        checklist_hash: recorded in the result.

    Raises:
        InputError: no pair to fit (all ties), an unknown label, a wrong shape, no question that differs within a pair,
            or separable data without penalty.
    """
    # model_construct skips the checks of a configuration: errors below name arguments.
    settings = WeightRegressionParameters.model_construct(
        nonnegative=nonnegative,
        encoding=encoding,
        answers=answers,
        penalty=penalty,
        penalties=tuple(penalties),
        folds=folds,
        bootstrap_samples=bootstrap_samples,
        bootstrap=bootstrap,
        seed=seed,
    )
    fitted = fit_pairs(
        answers_a,
        answers_b,
        preference,
        settings,
        groups=groups,
        votes=votes,
        sample_weight=sample_weight,
        question_ids=question_ids,
    )
    return replace(fitted, checklist_hash=checklist_hash)


def fit_pairs(
    answers_a: Answers,
    answers_b: Answers,
    preference: Labels,
    settings: WeightRegressionParameters,
    *,
    groups: Labels | None = None,
    votes: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
    question_ids: Sequence[str] | None = None,
) -> RewardWeights:
    """Fit weights as :func:`fit_weights` with the parameters of weight_regression, without checklist hash."""
    from threadpoolctl import threadpool_limits

    difference = _differences(answers_a, answers_b, settings.encoding)
    labels = checked_preference(preference, len(difference))
    names = _names(question_ids, difference.shape[1])
    data, constant = PairData.make(difference, labels, groups=groups, votes=votes, sample_weight=sample_weight)
    active = np.setdiff1d(np.arange(len(names)), constant)
    if not active.size:
        raise InputError(
            "no answer differs between the two clips of any pair",
            remedy="Check that the answers belong to these pairs",
            field="answers",
        )
    penalty = settings.penalty
    path: list[dict[str, float]] = []
    # One thread: narrow matrices do not profit from more, and sums then do not depend on the number of cores.
    with threadpool_limits(limits=1):
        start = None
        if penalty is None:
            penalty, path, start = choose_penalty(
                data, active, settings.penalties, folds=settings.folds, seed=settings.seed
            )
        weights, negative = fit_nonnegative(data, active, penalty, nonnegative=settings.nonnegative, start=start)
        remaining = np.setdiff1d(active, [i for i, _ in negative]).astype(np.int64)
        if penalty == 0.0:
            check_determined(data, remaining, weights, names)
        intervals = weight_intervals(
            data,
            remaining,
            weights,
            nonnegative=settings.nonnegative,
            samples=settings.bootstrap_samples,
            method=settings.bootstrap,
            seed=settings.seed,
        )
    removed = np.zeros(len(names), dtype=bool)
    removed[[*constant, *(i for i, _ in negative)]] = True
    projection = data.difference @ weights
    low, high = data.difference.min(axis=0), data.difference.max(axis=0)
    facts = {
        "separated": bool((weights != 0.0).any() and (projection > 0).all()),
        "one_sided": [names[i] for i in np.flatnonzero((low >= 0) & (high > 0) & ~removed)],
        "constant": [names[i] for i in constant],
        "no_interval": {names[i]: reason for i, reason in sorted(intervals.reasons.items())},
    }
    of_penalty = edge_of_grid(penalty, path) if settings.penalty is None else []
    warnings = _warnings(facts, of_penalty, all_removed=bool(removed.all()))
    removals = [
        {"step": 0, "question_id": names[i], "weight": 0.0, "reason": "same answer within every pair"} for i in constant
    ]
    removals += [
        {"step": step, "question_id": names[i], "weight": weight, "reason": "negative weight"}
        for step, (i, weight) in enumerate(negative, start=1)
    ]
    return RewardWeights(
        question_ids=names,
        weights=weights,
        ci_low=intervals.low,
        ci_high=intervals.high,
        removed=removed,
        encoding=settings.encoding,
        answers=settings.answers,
        checklist_hash="",
        removals=tuple(removals),
        statistics={
            "n_pairs": len(labels),
            "n_ties": int((labels == "tie").sum()),
            "n_fitted": int(data.n_pairs),
            "n_groups": int(data.n_groups),
            "penalty": float(penalty),
            "penalty_path": path,
            "log_loss": float(np.average(np.logaddexp(0.0, -projection), weights=data.weight)),
            "accuracy": float(np.average(projection > 0, weights=data.weight)),
            **facts,
            "bootstrap": {"samples": int(settings.bootstrap_samples), "method": settings.bootstrap},
            "seed": int(settings.seed),
            "warnings": warnings,
        },
    )


def _differences(answers_a: Answers, answers_b: Answers, encoding: Encoding) -> npt.NDArray[np.float64]:
    """Return encoded answers on the first clips minus those on the second, [pairs, questions]."""
    encoded_a, encoded_b = encode(answers_a, encoding), encode(answers_b, encoding)
    if encoded_a.ndim != 2 or encoded_a.shape != encoded_b.shape:
        raise InputError(
            f"the answers of the two clips have shapes {encoded_a.shape} and {encoded_b.shape}",
            remedy="Give two arrays [pairs, questions] of the same shape",
            field="answers",
        )
    return encoded_a - encoded_b


def _names(question_ids: Sequence[str] | None, columns: int) -> tuple[str, ...]:
    names = tuple(question_ids) if question_ids is not None else tuple(f"q{i + 1}" for i in range(columns))
    if len(names) != columns:
        problem = f"{len(names)} question names for {columns} columns"
        raise InputError(problem, remedy="Give one name per column", field="question_ids")
    return names


def _warnings(facts: dict[str, Any], of_penalty: Sequence[str], *, all_removed: bool) -> list[str]:
    """Return warnings about weights and intervals."""
    constant, one_sided, no_interval = facts["constant"], facts["one_sided"], facts["no_interval"]
    warnings = []
    if constant:
        warnings.append(f"{len(constant)} questions have the same answer within every pair and get no weight")
    if facts["separated"]:
        warnings.append("the weights order every pair correctly, so only the penalty determines their scale")
    if one_sided:
        warnings.append(
            f"{len(one_sided)} questions never contradict a preference, so only the penalty bounds their weights"
        )
    if all_removed:
        warnings.append("every question was removed: no answer predicts the preferred clip")
    warnings += of_penalty
    for reason in dict.fromkeys(no_interval.values()):
        concerned = [name for name, its in no_interval.items() if its == reason]
        shown = ", ".join(concerned[:5]) + (", ..." if len(concerned) > 5 else "")
        warnings.append(f"no interval for the weights of {len(concerned)} questions ({shown}): {reason}")
    return warnings
