"""The linear reward: weights over checklist answers, fitted on human preferences, and what they say about a clip.

Source: VisionReward (arXiv 2412.21059), section 3.2: R = sum_i w_i x_i with x_i the answer to question i (equations 3
and 4), and w from a logistic regression without intercept of the preference on the difference of two clips' answers
(equation 5); the reward of a dimension is the sum over its questions (equation 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.weights import AnswerKind, Encoding, RewardWeights
from vr_pipeline.statistics.labels import FloatArray, checked_preference

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist


Bootstrap = Literal["score", "refit"]


def encode(answers: npt.ArrayLike, encoding: Encoding = "zero_one") -> FloatArray:
    """Answers as the numbers that are weighed.

    Args:
        answers: probabilities of yes or answers in {0, 1} (further features may have any scale), any shape; NaN marks
            a question that its gate switched off.
        encoding: ``zero_one`` keeps the numbers, ``plus_minus`` maps 0..1 to -1..1; NaN becomes 0 in either.
    """
    values = np.asarray(answers, dtype=np.float64)
    if np.isinf(values).any():
        place = np.argwhere(np.isinf(values))[0]
        raise InputError(
            "an answer is infinite", remedy="Correct the answers or judge the clip again", row=int(place[0]) + 1
        )
    if encoding == "plus_minus":
        values = 2.0 * values - 1.0
    elif encoding != "zero_one":
        raise InputError(f"unknown encoding '{encoding}'", remedy="Use zero_one or plus_minus", field="encoding")
    return np.where(np.isnan(values), 0.0, values)


def score(answers: npt.ArrayLike, weights: RewardWeights) -> FloatArray:
    """Total reward of each clip.

    Args:
        answers: array [clips, questions] (or [questions] for one clip), columns as ``weights.question_ids``, of the
            kind ``weights.answers``; NaN marks a gated question.
        weights: the linear reward.

    Returns:
        array [clips] (a scalar array for one clip).
    """
    encoded = encoded_answers(answers, weights)
    # Summed row by row and not by a matrix product: equal rows then have exactly equal rewards wherever they stand,
    # which ties and dominance rely on.
    return (encoded * weights.weights).sum(axis=-1)


def dimension_scores(answers: npt.ArrayLike, weights: RewardWeights, checklist: Checklist) -> pd.DataFrame:
    """Reward of each clip by dimension: the part of the total that comes from the dimension's questions.

    Args:
        answers: as in :func:`score`, two-dimensional.
        weights: the linear reward.
        checklist: says which question belongs to which dimension.

    Returns:
        One row a clip, one column ``dim_<name>`` a dimension, in the order of the checklist; rows add up to the total.
    """
    encoded = np.atleast_2d(encoded_answers(answers, weights))
    dimension_of = {question.question_id: question.dimension for question in checklist.questions}
    unknown = [question for question in weights.question_ids if question not in dimension_of]
    if unknown:
        raise InputError(
            f"the weights name question '{unknown[0]}' which is not in the checklist",
            remedy="Fit the weights again with this checklist, or use the checklist they were fitted with",
            field="question_ids",
        )
    parts = encoded * weights.weights
    of_column = np.array([dimension_of[question] for question in weights.question_ids], dtype=object)
    return pd.DataFrame(
        {f"dim_{name}": np.ascontiguousarray(parts[:, of_column == name]).sum(axis=1) for name in checklist.dimensions}
    )


def fit_weights(
    answers_a: npt.ArrayLike,
    answers_b: npt.ArrayLike,
    preference: Sequence[str] | npt.ArrayLike,
    *,
    nonnegative: bool = True,
    groups: Sequence[str] | npt.ArrayLike | None = None,
    votes: npt.ArrayLike | None = None,
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
    """Fit the weights of the questions on pairs of clips that people compared.

    Minimises mean log(1 + exp(-w . z)) + penalty / 2 |w|^2 with z the answers of the preferred clip minus those of the
    other (VisionReward, equation 5). While a weight is negative, the question with the most negative one is removed
    and the rest fitted again (not in the paper's text: its authors describe it in their repository, issue 14). The
    result does not depend on the order of the pairs nor on which clip is A.

    Args:
        answers_a, answers_b: answers on the first and second clip, arrays [pairs, questions]; NaN marks a question
            that its gate switched off.
        preference: 'a', 'b' or 'tie', [pairs]; ties take no part in the fit and are counted.
        nonnegative: remove questions of negative weight.
        groups: the prompt of each pair, [pairs]: cross-validation and bootstrap never split a prompt. Without it every
            pair stands for itself.
        votes: soft labels, array [pairs, 2]: share of the annotators for A and for B. Overrides ``preference`` except
            for counting ties; a pair without votes for either takes no part.
        question_ids: names of the columns; ``q1``, ``q2``, ... without it.
        encoding: see :func:`encode`.
        answers: recorded in the result; the arrays must already be of that kind.
        penalty: strength of the L2 penalty per pair; None chooses it from ``penalties`` by cross-validation.
        folds: number of folds of the cross-validation.
        bootstrap_samples: replicates for the 95 % intervals (``refit`` alone draws them); 0 computes none.
        bootstrap: ``refit`` repeats the fit of the kept questions on every replicate; ``score`` takes one Newton step
            without each prompt; see :func:`vr_pipeline.rewards.checklist.regression.weight_intervals`.
        seed: of folds and bootstrap.
        checklist_hash: recorded in the result.

    Raises:
        InputError: no pair to fit on (all ties), unknown labels, shapes that do not fit, no question that differs
            within a pair, separable data without penalty.
    """
    from threadpoolctl import threadpool_limits

    from vr_pipeline.rewards.checklist.regression import (
        PairData,
        check_determined,
        choose_penalty,
        edge_of_grid,
        fit_nonnegative,
        weight_intervals,
    )

    encoded_a, encoded_b = encode(answers_a, encoding), encode(answers_b, encoding)
    if encoded_a.ndim != 2 or encoded_a.shape != encoded_b.shape:
        raise InputError(
            f"answers of the two clips have shapes {encoded_a.shape} and {encoded_b.shape}",
            remedy="Give two arrays [pairs, questions] of one shape",
            field="answers",
        )
    labels = checked_preference(preference, len(encoded_a))
    names = tuple(question_ids) if question_ids is not None else tuple(f"q{i + 1}" for i in range(encoded_a.shape[1]))
    if len(names) != encoded_a.shape[1]:
        raise InputError(
            f"{len(names)} question names for {encoded_a.shape[1]} columns",
            remedy="Give one name a column",
            field="question_ids",
        )
    difference = encoded_a - encoded_b
    data, constant = PairData.make(difference, labels, groups=groups, votes=votes)
    warnings: list[str] = []
    removals: list[dict[str, Any]] = [
        {"step": 0, "question_id": names[i], "weight": 0.0, "reason": "same answer within every pair"} for i in constant
    ]
    if constant.size:
        warnings.append(f"{constant.size} questions never differ within a pair and carry no weight")
    active = np.setdiff1d(np.arange(len(names)), constant)
    if not active.size:
        raise InputError(
            "no question differs between the two clips of any pair",
            remedy="Check that the answers belong to these pairs",
            field="answers",
        )
    path: list[dict[str, float]] = []
    # One thread: the matrices are narrow, so that threads mostly wait for each other (badly so on a busy machine), and
    # sums do not depend on the number of cores.
    with threadpool_limits(limits=1):
        start, given = None, penalty is not None
        if penalty is None:
            penalty, path, start = choose_penalty(data, active, penalties, folds=folds, seed=seed)
        weights, negative = fit_nonnegative(data, active, penalty, nonnegative=nonnegative, start=start)
        remaining = np.setdiff1d(active, [i for i, _ in negative]).astype(np.int64)
        if penalty == 0.0:
            check_determined(data, remaining, weights, names)
        intervals = weight_intervals(
            data,
            remaining,
            weights,
            nonnegative=nonnegative,
            samples=bootstrap_samples,
            method=bootstrap,
            seed=seed,
        )
    removals += [
        {"step": step, "question_id": names[i], "weight": weight, "reason": "negative weight"}
        for step, (i, weight) in enumerate(negative, start=1)
    ]
    kept = weights != 0.0
    removed = np.zeros(len(names), dtype=bool)
    removed[constant] = True
    removed[[i for i, _ in negative]] = True
    projection = data.difference @ weights
    separated = bool(kept.any() and (projection > 0).all())
    if separated:
        warnings.append("the weights order every pair correctly: their scale is set by the penalty alone")
    low, high = data.difference.min(axis=0), data.difference.max(axis=0)
    one_sided = np.flatnonzero((low >= 0) & (high > 0) & ~removed)
    if one_sided.size:
        warnings.append(f"{one_sided.size} questions never contradict a preference: the penalty bounds their weights")
    if removed.all():
        warnings.append("every question was removed: no answer speaks for the preferred clips")
    if not given:
        warnings += edge_of_grid(penalty, path)
    no_interval = {names[i]: reason for i, reason in sorted(intervals.reasons.items())}
    for reason in dict.fromkeys(no_interval.values()):
        concerned = [name for name, its in no_interval.items() if its == reason]
        shown = ", ".join(concerned[:5]) + (", ..." if len(concerned) > 5 else "")
        warnings.append(f"no interval for the weights of {len(concerned)} questions ({shown}): {reason}")
    log_loss = float(np.average(np.logaddexp(0.0, -projection), weights=data.weight))
    return RewardWeights(
        question_ids=names,
        weights=weights,
        ci_low=intervals.low,
        ci_high=intervals.high,
        removed=removed,
        encoding=encoding,
        answers=answers,
        checklist_hash=checklist_hash,
        removals=tuple(removals),
        statistics={
            "n_pairs": len(labels),
            "n_ties": int((labels == "tie").sum()),
            "n_fitted": int(data.n_pairs),
            "n_groups": int(data.n_groups),
            "penalty": float(penalty),
            "penalty_path": path,
            "log_loss": log_loss,
            "accuracy": float(np.average(projection > 0, weights=data.weight)),
            "separated": separated,
            "one_sided": [names[i] for i in one_sided],
            "constant": [names[i] for i in constant],
            "no_interval": no_interval,
            "bootstrap": {"samples": int(bootstrap_samples), "method": bootstrap},
            "seed": int(seed),
            "warnings": warnings,
        },
    )


def encoded_answers(answers: npt.ArrayLike, weights: RewardWeights) -> FloatArray:
    """Answers as the numbers that these weights weigh.

    Raises:
        InputError: the answers do not have the columns of ``weights.question_ids``.
    """
    encoded = encode(answers, weights.encoding)
    if encoded.ndim not in (1, 2) or encoded.shape[-1] != len(weights.question_ids):
        raise InputError(
            f"answers have shape {encoded.shape}, the weights have {len(weights.question_ids)} questions",
            remedy="Give an array [clips, questions] with the columns of weights.question_ids",
            field="answers",
        )
    if weights.as_is:
        same = np.isin(np.array(weights.question_ids), weights.as_is)
        encoded = np.where(same, encode(answers, "zero_one"), encoded)
    return encoded
