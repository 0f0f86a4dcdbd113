"""Means, gains and win rates with uncertainty, with clips of one prompt as dependent."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.statistics.agreement import without_nan
from vr_pipeline.statistics.labels import FloatArray

Kind = Literal["number", "share", "correlation"]

MINIMUM_PROMPTS = 5
"""Fewer prompts give no interval, because their spread is unknown."""

_NO_INTERVAL = (math.nan, math.nan)


class _Result:
    def to_json(self) -> dict[str, Any]:
        """Return a dictionary for JSON (NaN as null), with ``no_interval`` as the reason for a missing interval."""
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        reason = (
            f"{values['n_prompts']} prompts; an interval needs {MINIMUM_PROMPTS}"
            if values["n_prompts"] < MINIMUM_PROMPTS
            else "prompts do not differ"
        )
        return without_nan(values) | ({"no_interval": reason} if math.isnan(values["ci_low"]) else {})


@dataclass(frozen=True)
class Mean(_Result):
    """A mean over clips with its 95 % interval; ``se`` is clustered by prompt, NaN with fewer than two prompts."""

    mean: float
    se: float
    ci_low: float
    ci_high: float
    n: int
    n_prompts: int


@dataclass(frozen=True)
class Gain(_Result):
    """Mean gain of a policy over a baseline, with equal weights of prompts, and its 95 % interval."""

    mean: float
    se: float
    ci_low: float
    ci_high: float
    n_prompts: int

    def effect(self) -> tuple[float, float, float]:
        """Return the gain in standard deviations of the prompts' gains (Cohen's d_z) and the ends of its 95 % interval.

        mean / se is Student's t with the noncentrality d sqrt(n): the ends are the values of d under which a t as
        large, or as small, has probability 0.025 (Steiger and Fouladi 1997). NaN where :func:`interval` has none.
        """
        from scipy.optimize import brentq
        from scipy.special import ndtr
        from scipy.stats import chi2

        n = self.n_prompts
        if math.isnan(interval(self.mean, self.se, n)[0]):
            return math.nan, math.nan, math.nan
        t, root = self.mean / self.se, math.sqrt(n)
        # P(T <= t) is the mean of Phi(t s - shift) over the estimate s of the deviation, at its quantiles.
        deviations = np.sqrt(chi2.ppf((np.arange(2000) + 0.5) / 2000, n - 1) / (n - 1))
        at = t * deviations
        low, high = (
            brentq(lambda shift, tail=tail: float(ndtr(at - shift).mean()) - tail, at.min() - 6.0, at.max() + 6.0)
            for tail in (0.975, 0.025)
        )
        return t / root, low / root, high / root


@dataclass(frozen=True)
class WinRate(_Result):
    """Share of comparisons that a policy wins (a tie is half a win), with its 95 % interval."""

    rate: float
    ci_low: float
    ci_high: float
    wins: int
    ties: int
    losses: int
    n_prompts: int


def interval(
    value: float, se: float, n_clusters: int, *, kind: Kind = "number", n: int | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a figure from its standard error, as for all figures except weights.

    * ``number``: Student's t with ``n_clusters`` - 1 degrees of freedom.
    * ``share``: Wilson's interval with the quantile of Student's t, and the effective number of observations value
      (1 - value) / se^2, limited to between the clusters and ``n`` (as Korn and Graubard 1998). It stays within 0 and
      1, and has a width even if all observations are equal.
    * ``correlation``: Student's t on Fisher's scale, artanh, so that it stays within -1 and 1.

    The tests have simulations with 5 to 50 clusters.

    Args:
        value: the figure.
        se: its standard error with clusters as sampling units; for a correlation, on Fisher's scale.
        n_clusters: number of sampling units.
        n: number of observations, an upper limit of the effective number of a share.
        kind: of the figure.
        level: of the interval; :func:`simultaneous` for several.

    Returns:
        lower and upper end; NaN with fewer than :data:`MINIMUM_PROMPTS` clusters, and (except for shares) if all
        clusters are equal, which does not exclude a spread among others.
    """
    from scipy.stats import t

    if n_clusters < MINIMUM_PROMPTS or not math.isfinite(value) or not math.isfinite(se):
        return _NO_INTERVAL
    quantile = float(t.ppf((1 + level) / 2, n_clusters - 1))
    if kind == "share":
        effective = value * (1 - value) / se**2 if se > 0 else float(n_clusters)
        effective = min(max(effective, n_clusters), max(n or 0, n_clusters))
        square = quantile**2 / effective
        centre = (value + square / 2) / (1 + square)
        half = math.sqrt(square * value * (1 - value) + square**2 / 4) / (1 + square)
        return max(0.0, centre - half), min(1.0, centre + half)
    if se <= 1e-12 * max(1.0, abs(value)):
        return _NO_INTERVAL
    if kind == "correlation":
        if abs(value) >= 1 - 1e-9:
            return _NO_INTERVAL
        return math.tanh(math.atanh(value) - quantile * se), math.tanh(math.atanh(value) + quantile * se)
    return value - quantile * se, value + quantile * se


def simultaneous(number: int) -> float:
    """Return the level of each of several intervals with a joint level of 95 % (Bonferroni)."""
    return 1 - (1 - 0.95) / max(number, 1)


def clustered_mean(values: npt.ArrayLike, prompts: Sequence[str] | npt.ArrayLike, *, level: float = 0.95) -> Mean:
    """Return the mean over clips with a standard error that has prompts as sampling units.

    se = sqrt(C / (C - 1) * sum over prompts of (sum of the prompt's residuals)^2) / n, with C prompts and n clips (the
    cluster-robust variance of a mean; Liang and Zeger 1986). With one clip per prompt this is s / sqrt(n).
    """
    x, codes, n_prompts = _clusters(values, prompts)
    if not len(x):
        return Mean(math.nan, math.nan, math.nan, math.nan, 0, 0)
    mean = float(x.mean())
    se = math.sqrt(_variance(x - mean, codes)) / len(x) if n_prompts > 1 else math.nan
    return Mean(mean, se, *interval(mean, se, n_prompts, level=level), len(x), n_prompts)


def paired_gain(
    values: npt.ArrayLike,
    prompts: Sequence[str] | npt.ArrayLike,
    baseline_values: npt.ArrayLike,
    baseline_prompts: Sequence[str] | npt.ArrayLike,
    *,
    level: float = 0.95,
) -> Gain:
    """Return the gain over a baseline: the mean over prompts of the difference of the prompt's means.

    The interval is Student's t over the differences. These are means of several clips and thus nearly normal; with
    the 10 to 50 prompts of an evaluation, a percentile bootstrap would be too narrow.

    Raises:
        InputError: the policies have different prompts.
    """
    x, codes, _ = _clusters(values, prompts)
    y, baseline_codes, _ = _clusters(baseline_values, baseline_prompts)
    names, baseline_names = _sorted_names(prompts), _sorted_names(baseline_prompts)
    if names != baseline_names:
        other = sorted(set(names) ^ set(baseline_names))[0]
        raise InputError(
            f"prompt '{other}' was evaluated for only one policy",
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
    se = float(difference.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return Gain(mean, se, *interval(mean, se, n, level=level), n)


def win_rate(
    difference: npt.ArrayLike,
    prompts: Sequence[str] | npt.ArrayLike,
    *,
    crossed: tuple[float, int] | None = None,
    tolerance: float = 1e-9,
) -> WinRate:
    """Return the share of comparisons won (a tie is half a win) with the interval of :func:`interval`.

    Args:
        difference: reward of the policy's clip minus reward of the baseline's, [comparisons].
        prompts: of the comparisons.
        crossed: variance of the rate by units crossed with prompts, such as annotators, and their number. It is added
            to the variance by prompt (two-way clusters; Cameron, Gelbach and Miller 2011, without subtracting the
            common part, which would need many observations of every combination).
        tolerance: largest absolute difference of a tie.
    """
    d, codes, n_prompts = _clusters(difference, prompts)
    if not len(d):
        return WinRate(math.nan, math.nan, math.nan, 0, 0, 0, 0)
    wins, losses = int((d > tolerance).sum()), int((d < -tolerance).sum())
    points = np.where(d > tolerance, 1.0, np.where(d < -tolerance, 0.0, 0.5))
    rate = float(points.mean())
    variance, n_clusters = _variance(points - rate, codes), n_prompts
    se = math.sqrt(variance) / len(d)
    if crossed is not None:
        se, n_clusters = math.sqrt(se**2 + crossed[0]), min(n_prompts, crossed[1])
    low, high = interval(rate, se, n_clusters, kind="share", n=len(d))
    return WinRate(rate, low, high, wins, len(d) - wins - losses, losses, n_prompts)


def bootstrap_by_prompt(
    statistic: Callable[[npt.NDArray[np.int64]], float | Sequence[float] | FloatArray],
    prompts: Sequence[str] | npt.ArrayLike,
    *,
    kinds: Sequence[Kind] = (),
    samples: int = 500,
    seed: int = 0,
) -> FloatArray:
    """Return the interval of a statistic by drawing prompts with replacement.

    The standard error is that of the replicates, times sqrt(C / (C - 1)) for C prompts, in :func:`interval`.
    Percentiles would be too narrow with few prompts, and of no width for equal prompts.

    Args:
        statistic: from the positions of the rows in a replicate to one number or several.
        prompts: of the rows.
        kinds: of the numbers; empty for ``number``.
        samples: number of replicates.
        seed: of the replicates.

    Returns:
        array [2] or [2, statistics]: lower and upper end; NaN as in :func:`interval`, and if more than 5 % of the
        replicates are not finite.
    """
    _, codes, n_prompts = _clusters(np.zeros(len(np.asarray(prompts))), prompts)
    whole = np.asarray(statistic(np.arange(len(codes))), dtype=np.float64)
    low, high = np.full((2, whole.size), np.nan)
    if n_prompts >= MINIMUM_PROMPTS and samples > 1:
        order = np.argsort(codes, kind="stable")
        rows_of = np.split(order, np.cumsum(np.bincount(codes, minlength=n_prompts))[:-1])
        generator = np.random.default_rng(seed)
        draws = np.array(
            [
                np.ravel(statistic(np.concatenate([rows_of[i] for i in generator.integers(n_prompts, size=n_prompts)])))
                for _ in range(samples)
            ],
            dtype=np.float64,
        )
        for i, value in enumerate(whole.ravel()):
            kind = kinds[i] if kinds else "number"
            drawn = draws[np.isfinite(draws[:, i]), i]
            if len(drawn) < 0.95 * samples:
                continue
            if kind == "correlation":
                drawn = np.arctanh(np.clip(drawn, -1 + 1e-9, 1 - 1e-9))
            se = float(drawn.std(ddof=1)) * math.sqrt(n_prompts / (n_prompts - 1))
            low[i], high[i] = interval(float(value), se, n_prompts, kind=kind, n=len(codes))
    return np.stack([low, high]).reshape(2, *whole.shape)


def linked_prompts(
    prompts: Sequence[str] | npt.ArrayLike, first: Sequence[str] | npt.ArrayLike, second: Sequence[str] | npt.ArrayLike
) -> npt.NDArray[np.str_]:
    """Return the sampling unit of each pair: the first of all prompts linked by shared clips.

    A clip with several prompts makes their pairs dependent.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = np.asarray(prompts).astype(str)
    unique, codes = np.unique(names, return_inverse=True)
    clips, places = np.unique(np.r_[np.asarray(first).astype(str), np.asarray(second).astype(str)], return_inverse=True)
    size = len(unique) + len(clips)
    edges = (np.ones(len(places)), (np.r_[codes, codes], places + len(unique)))
    _, part = connected_components(coo_array(edges, shape=(size, size)), directed=False)
    _, representative = np.unique(part[: len(unique)], return_index=True)
    label = dict(zip(part[representative].tolist(), unique[representative], strict=True))
    return np.array([label[number] for number in part[codes].tolist()], dtype=str)


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
            remedy="Remove clips without a reward",
            row=int(np.flatnonzero(~np.isfinite(x))[0]) + 1,
        )
    unique, codes = np.unique(names, return_inverse=True)
    return x, codes.astype(np.int64), len(unique)


def _variance(residuals: FloatArray, codes: npt.NDArray[np.int64]) -> float:
    """Return the cluster-robust variance of a sum of residuals."""
    sums = np.bincount(codes, weights=residuals)
    return float(len(sums) / max(len(sums) - 1, 1) * (sums @ sums))


def _sorted_names(prompts: Sequence[str] | npt.ArrayLike) -> list[str]:
    return [str(name) for name in np.unique(np.asarray(prompts))]
