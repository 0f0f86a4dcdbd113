"""Confidence intervals of the weights over prompts, for weights that the pairs determine."""

from dataclasses import dataclass

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.regression import FloatArray, IntArray, PairData
from vr_pipeline.rewards.checklist.separation import likelihood_optimum, newton
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.statistics.clustered import MINIMUM_PROMPTS

_LEVERAGE = 0.02
"""Share of the curvature above which a prompt is omitted exactly."""

_TRIES = 40
"""Replicates fitted to detect separation in the pairs of drawn prompts."""

SEPARATED = "no pair contradicts the question, alone or with others, so only the penalty bounds its weight"
COLLINEAR = "its answers repeat those of other questions in these pairs, so only the penalty divides the weight"
FRAGILE = "without a few prompts no pair would contradict the question, so the upper end is unknown"
ALIKE = "all prompts give exactly the same weight, so the spread over prompts is unknown"
PENALISED = "the penalty moved the weight out of the interval that the pairs give"


@dataclass(frozen=True)
class WeightIntervals:
    """Ends of the intervals, [questions], NaN if there is none, with the reasons by column (none for removed ones)."""

    low: FloatArray
    high: FloatArray
    reasons: dict[int, str]


def weight_intervals(
    data: PairData,
    kept: IntArray,
    weights: FloatArray,
    *,
    nonnegative: bool,
    samples: int,
    method: str,
    seed: int,
    level: float = 0.95,
) -> WeightIntervals:
    """Return intervals of the weights of kept questions.

    A penalty shrinks the weights, and intervals around shrunken weights do not cover. Intervals are therefore around
    the optimum without penalty, with Student's t over the G prompts and the standard error

    * ``score``: sqrt((G - 1) / G sum_g d_g^2), with d_g the Newton step of the optimum when prompt g is omitted (the
      cluster-robust covariance of the jackknife, CR3; MacKinnon, Nielsen and Webb 2023),
    * ``refit``: the standard deviation over ``samples`` fits to prompts drawn with replacement, times
      sqrt(G / (G - 1)).

    A question has a reason instead of an interval if the pairs do not determine its weight, there are fewer than
    :data:`~vr_pipeline.statistics.clustered.MINIMUM_PROMPTS` prompts, separation depends on single prompts or draws,
    or the penalty moved the weight out of its interval.
    """
    from scipy.stats import t

    if method not in ("score", "refit"):
        raise InputError(f"unknown bootstrap '{method}'", remedy="Use score or refit", field="bootstrap")
    low, high = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    if samples < 1 or not kept.size:
        return WeightIntervals(low, high, {})

    def none(reason: str) -> WeightIntervals:
        return WeightIntervals(low, high, {int(column): reason for column in kept} | reasons)

    reasons: dict[int, str] = {}
    found = likelihood_optimum(data.difference[:, kept], data.weight, weights[kept])
    for place in np.flatnonzero(~found.determined):
        reasons[int(kept[place])] = COLLINEAR if found.collinear[place] else SEPARATED
    if not found.determined.any():
        return none(SEPARATED)
    features = data.difference[found.rows][:, kept] @ found.basis
    speaking = (np.abs(features) > 1e-9).any(axis=1)
    features, weight = features[speaking], data.weight[found.rows][speaking]
    group = np.unique(data.group[found.rows][speaking], return_inverse=True)[1]
    n_groups = int(group[-1]) + 1
    if n_groups < MINIMUM_PROMPTS:
        return none(f"there are only {n_groups} prompts; an interval needs {MINIMUM_PROMPTS}")
    optimum = found.basis.T @ found.weights
    steps = _steps_without_a_prompt(features, weight / data.weight.sum(), group, optimum, found.curvature)
    if steps is None:
        return none(FRAGILE)
    if method == "score":
        # Only steps that move margins by about 1 can separate pairs; with many prompts none does.
        furthest = float(np.sqrt((features @ (steps.T @ steps) * features).sum(axis=1).max()))
        if furthest > 0.2 and _refit_draws(features, weight, group, optimum, _TRIES, seed) is None:
            return none(FRAGILE)
        error = np.sqrt((n_groups - 1) / n_groups * ((steps @ found.basis.T) ** 2).sum(axis=0))
    else:
        draws = _refit_draws(features, weight, group, optimum, samples, seed)
        if draws is None:
            return none(FRAGILE)
        error = np.sqrt(n_groups / (n_groups - 1)) * (draws @ found.basis.T).std(axis=0, ddof=1)
    half = float(t.ppf((1 + level) / 2, n_groups - 1)) * error
    for place in np.flatnonzero(found.determined):
        ends = found.weights[place] - half[place], found.weights[place] + half[place]
        if half[place] <= 1e-6 * max(1.0, abs(found.weights[place])):
            reasons[int(kept[place])] = ALIKE
            continue
        if not ends[0] <= weights[kept[place]] <= ends[1]:
            reasons[int(kept[place])] = PENALISED
            continue
        low[kept[place]], high[kept[place]] = max(ends[0], 0.0) if nonnegative else ends[0], ends[1]
    return WeightIntervals(low, high, reasons)


def _steps_without_a_prompt(
    features: FloatArray, weight: FloatArray, group: IntArray, optimum: FloatArray, curvature: FloatArray
) -> FloatArray | None:
    """Return the step of the optimum when each prompt is omitted, [prompts, directions]; None without optimum."""
    wrong = 1.0 / (1.0 + np.exp(features @ optimum))
    scores = features * (weight * wrong)[:, None]
    starts = np.flatnonzero(np.r_[True, np.diff(group) > 0])
    scores = np.add.reduceat(scores, starts, axis=0)
    inverse = np.linalg.inv(curvature)
    spread = weight * wrong * (1 - wrong)
    leverage = np.add.reduceat(spread * ((features @ inverse) * features).sum(axis=1), starts)
    steps = -scores @ inverse
    ends = np.r_[starts[1:], len(features)]
    for i in np.flatnonzero(leverage > _LEVERAGE):
        own = features[starts[i] : ends[i]]
        rest = curvature - (own * spread[starts[i] : ends[i], None]).T @ own
        if np.linalg.eigvalsh(rest)[0] <= 1e-9 * curvature.trace():
            return None
        steps[i] = -np.linalg.solve(rest, scores[i])
    return steps


def _refit_draws(
    features: FloatArray, weight: FloatArray, group: IntArray, optimum: FloatArray, samples: int, seed: int
) -> FloatArray | None:
    """Return optima of replicates of drawn prompts; None if more than one in forty has none."""
    generator = np.random.default_rng(seed)
    n_groups, draws = int(group[-1]) + 1, []
    for number in progress_bar(range(samples), description="bootstrap of the weights", leave=False):
        drawn = weight * np.bincount(generator.integers(n_groups, size=n_groups), minlength=n_groups)[group]
        there = drawn > 0
        found = newton(features[there], drawn[there] / drawn.sum(), optimum)
        if found is not None:
            draws.append(found[0])
        elif number + 1 - len(draws) > samples / 40:
            return None
    return np.stack(draws)
