"""Means, gains and win rates with their uncertainty, where clips of one prompt are not independent of each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist

FloatArray = npt.NDArray[np.float64]

MINIMUM_PROMPTS = 5
"""With fewer prompts no interval is given: their spread is not known."""


class _Result:
    def to_json(self) -> dict[str, Any]:
        """A dictionary that JSON can hold (NaN as null)."""
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()
        }


@dataclass(frozen=True)
class Mean(_Result):
    """A mean over clips; ``se`` is its standard error with prompts as clusters, NaN with fewer than two prompts."""

    mean: float
    se: float
    n: int
    n_prompts: int


@dataclass(frozen=True)
class Gain(_Result):
    """Mean gain of a policy over a baseline, each prompt counting once, with its 95 % interval."""

    mean: float
    se: float
    ci_low: float
    ci_high: float
    n_prompts: int


@dataclass(frozen=True)
class WinRate(_Result):
    """Share of comparisons that a policy wins (a tie counts half), with its 95 % interval."""

    rate: float
    ci_low: float
    ci_high: float
    wins: int
    ties: int
    losses: int
    n_prompts: int


def clustered_mean(values: npt.ArrayLike, prompts: Sequence[str] | npt.ArrayLike) -> Mean:
    """Mean over clips with a standard error that takes the prompts as the units drawn.

    se = sqrt(C / (C - 1) * sum over prompts of (sum of the prompt's residuals)^2) / n, with C prompts and n clips (the
    cluster-robust variance of a mean; Liang and Zeger 1986). With one clip a prompt it is the usual s / sqrt(n).
    """
    x, codes, n_prompts = _clusters(values, prompts)
    if not len(x):
        return Mean(math.nan, math.nan, 0, 0)
    mean = float(x.mean())
    sums = np.bincount(codes, weights=x - mean, minlength=n_prompts)
    se = math.sqrt(n_prompts / (n_prompts - 1) * float(sums @ sums)) / len(x) if n_prompts > 1 else math.nan
    return Mean(mean, se, len(x), n_prompts)


def paired_gain(
    values: npt.ArrayLike,
    prompts: Sequence[str] | npt.ArrayLike,
    baseline_values: npt.ArrayLike,
    baseline_prompts: Sequence[str] | npt.ArrayLike,
    *,
    level: float = 0.95,
) -> Gain:
    """Gain over a baseline on the same prompts: mean over prompts of the difference of the prompt's means.

    The interval is Student's t over the prompts' differences. These are means of several clips each and so close to
    normal, and with the ten to fifty prompts of an evaluation the t quantile has the right width, where a percentile
    bootstrap over so few units is too narrow; it also needs no seed.

    Raises:
        InputError: the two sides do not have the same prompts.
    """
    from scipy.stats import t

    x, codes, _ = _clusters(values, prompts)
    y, baseline_codes, _ = _clusters(baseline_values, baseline_prompts)
    names, baseline_names = _sorted_names(prompts), _sorted_names(baseline_prompts)
    if names != baseline_names:
        other = sorted(set(names) ^ set(baseline_names))[0]
        raise InputError(
            f"prompt '{other}' was evaluated for one policy only",
            remedy="Evaluate both policies on the same prompts",
            field="prompt_id",
        )
    n = len(names)
    if not n:
        return Gain(math.nan, math.nan, math.nan, math.nan, 0)
    difference = np.bincount(codes, weights=x) / np.bincount(codes) - np.bincount(
        baseline_codes, weights=y
    ) / np.bincount(baseline_codes)
    mean = float(difference.mean())
    if n < 2:
        return Gain(mean, math.nan, math.nan, math.nan, n)
    se = float(difference.std(ddof=1) / math.sqrt(n))
    half = float(t.ppf((1 + level) / 2, n - 1)) * se
    return Gain(mean, se, mean - half, mean + half, n)


def win_rate(
    difference: npt.ArrayLike,
    prompts: Sequence[str] | npt.ArrayLike,
    *,
    tolerance: float = 1e-9,
    level: float = 0.95,
) -> WinRate:
    """Share of comparisons won, ties counting half.

    The interval is Wilson's score interval at the effective number of comparisons, p(1 - p) / se^2 with the clustered
    standard error, kept between the number of prompts and the number of comparisons: unlike a normal interval it stays
    within 0 and 1 and has a width even where every comparison was won.

    Args:
        difference: reward of the policy's clip minus that of the baseline's, [comparisons].
        prompts: prompt of each comparison.
        tolerance: differences of at most this size are ties.
    """
    from scipy.stats import norm

    d, codes, n_prompts = _clusters(difference, prompts)
    if not len(d):
        return WinRate(math.nan, math.nan, math.nan, 0, 0, 0, 0)
    wins, losses = int((d > tolerance).sum()), int((d < -tolerance).sum())
    points = np.where(d > tolerance, 1.0, np.where(d < -tolerance, 0.0, 0.5))
    estimate = clustered_mean(points, codes)
    rate = estimate.mean
    variance = estimate.se**2 if n_prompts > 1 else 0.0
    effective = rate * (1 - rate) / variance if variance > 0 else float(n_prompts)
    effective = min(max(effective, n_prompts), len(d))
    z = float(norm.ppf((1 + level) / 2))
    centre = (rate + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z * math.sqrt(rate * (1 - rate) / effective + z * z / (4 * effective**2)) / (1 + z * z / effective)
    return WinRate(
        rate, max(0.0, centre - half), min(1.0, centre + half), wins, len(d) - wins - losses, losses, n_prompts
    )


def bootstrap_by_prompt(
    statistic: Callable[[npt.NDArray[np.int64]], float | Sequence[float]],
    prompts: Sequence[str] | npt.ArrayLike,
    *,
    samples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> FloatArray:
    """Percentile interval of a statistic when prompts are drawn with replacement.

    Args:
        statistic: called with the positions of the rows in a replicate; gives one number or several.
        prompts: prompt of each row.

    Returns:
        array [2] or [2, statistics]: lower and upper end; replicates without a finite value are left out.
    """
    _, codes, n_prompts = _clusters(np.zeros(len(np.asarray(prompts))), prompts)
    order = np.argsort(codes, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(codes, minlength=n_prompts))[:-1]) if n_prompts else []
    generator = np.random.default_rng(seed)
    values = [
        np.asarray(statistic(np.concatenate([rows_of[i] for i in generator.integers(n_prompts, size=n_prompts)])))
        for _ in range(samples if n_prompts > 1 else 0)
    ]
    if not values:
        return np.full((2, *np.shape(statistic(np.arange(len(codes))))), np.nan)
    draws = np.stack(values).astype(np.float64)
    if np.isnan(draws).all(axis=0).any():
        return np.full((2, *draws.shape[1:]), np.nan)
    return np.asarray(np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0))


def sub_dimension_deviations(
    answers: npt.ArrayLike,
    other_answers: npt.ArrayLike,
    question_ids: Sequence[str],
    checklist: Checklist,
    prompts: Sequence[str] | npt.ArrayLike,
    other_prompts: Sequence[str] | npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """How far one set of clips is above another in each sub-dimension (VisionReward, Figure 4).

    A clip's score in a sub-dimension is the mean of its answers (share of yes) there; gated questions count 0. Shown
    is the mean over prompts of the difference of the prompt's mean scores: of preferred and other clips of human pairs,
    or of the clips of two policies.

    Args:
        answers, other_answers: arrays [clips, questions] in 0..1, NaN where gated.
        question_ids: of the columns.
        checklist: gives the sub-dimensions.
        prompts, other_prompts: prompt of each clip; the same for both without ``other_prompts``.

    Returns:
        dimension, sub_dimension, score, other_score, deviation, ci_low, ci_high (95 %, by prompt), in the order of the
        checklist; sub-dimensions without a column are left out.
    """
    first, second = (np.nan_to_num(np.asarray(array, dtype=np.float64), nan=0.0) for array in (answers, other_answers))
    place = {question: i for i, question in enumerate(question_ids)}
    second_prompts = prompts if other_prompts is None else other_prompts
    rows = []
    for sub in checklist.sub_dimensions:
        columns = [place[question.question_id] for question in sub.questions if question.question_id in place]
        if not columns:
            continue
        scores, other_scores = first[:, columns].mean(axis=1), second[:, columns].mean(axis=1)
        gain = paired_gain(scores, prompts, other_scores, second_prompts)
        rows.append(
            {
                "dimension": sub.dimension,
                "sub_dimension": sub.name,
                "score": float(scores.mean()),
                "other_score": float(other_scores.mean()),
                "deviation": gain.mean,
                "ci_low": gain.ci_low,
                "ci_high": gain.ci_high,
            }
        )
    return pd.DataFrame(
        rows, columns=["dimension", "sub_dimension", "score", "other_score", "deviation", "ci_low", "ci_high"]
    )


def policy_deviations(
    answers: pd.DataFrame, video_index: pd.DataFrame, checklist: Checklist, *, baseline: str = "original"
) -> dict[str, pd.DataFrame]:
    """How far every policy's clips are above the baseline's in each sub-dimension, on the same prompts.

    Args:
        answers: long table of the judge's answers.
        video_index: the clips with their ``policy``; those of status 'failed' are left out.
        checklist: gives the sub-dimensions.
        baseline: the policy to compare with.

    Returns:
        policy -> table of :func:`sub_dimension_deviations`; answers are cut at one half, as the paper's.

    Raises:
        InputError: there are no clips of the baseline.
    """
    from vr_pipeline.rewards.tables import answers_matrix

    usable = video_index[video_index["status"] == "ok"]
    parts = {str(policy): part for policy, part in usable.groupby("policy", sort=True)}
    if baseline not in parts:
        raise InputError(
            f"there are no clips of policy '{baseline}'", remedy="Evaluate it beside the others", field="policy"
        )
    matrices = {
        policy: answers_matrix(answers, list(part["video_id"]), checklist.question_ids, kind="binary")
        for policy, part in parts.items()
    }
    return {
        policy: sub_dimension_deviations(
            matrices[policy],
            matrices[baseline],
            checklist.question_ids,
            checklist,
            list(part["prompt_id"]),
            list(parts[baseline]["prompt_id"]),
        )
        for policy, part in parts.items()
        if policy != baseline
    }


def _clusters(
    values: npt.ArrayLike, prompts: Sequence[str] | npt.ArrayLike
) -> tuple[FloatArray, npt.NDArray[np.int64], int]:
    x = np.asarray(values, dtype=np.float64)
    names = np.asarray(prompts)
    if x.ndim != 1 or names.shape != x.shape:
        raise InputError(
            f"{x.size} values for {names.size} prompts", remedy="Give the prompt of each value", field="prompt_id"
        )
    if not np.isfinite(x).all():
        raise InputError(
            "a value is not a finite number",
            remedy="Leave out clips without a reward",
            row=int(np.flatnonzero(~np.isfinite(x))[0]) + 1,
        )
    unique, codes = np.unique(names, return_inverse=True)
    return x, codes.astype(np.int64), len(unique)


def _sorted_names(prompts: Sequence[str] | npt.ArrayLike) -> list[str]:
    return [str(name) for name in np.unique(np.asarray(prompts))]
