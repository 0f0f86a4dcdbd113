"""Means, gains and win rates with their uncertainty, where clips of one prompt are not independent of each other."""

from __future__ import annotations

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
"""With fewer prompts no interval is given: their spread is not known."""

_NO_INTERVAL = (math.nan, math.nan)


class _Result:
    def to_json(self) -> dict[str, Any]:
        """Return a dictionary for JSON (NaN as null), with the reason in ``no_interval`` where there is none."""
        values: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        reason = (
            f"{values['n_prompts']} prompts, an interval takes {MINIMUM_PROMPTS}"
            if values["n_prompts"] < MINIMUM_PROMPTS
            else "prompts do not differ"
        )
        return without_nan(values) | ({"no_interval": reason} if math.isnan(values["ci_low"]) else {})


@dataclass(frozen=True)
class Mean(_Result):
    """A mean over clips with its 95 % interval.

    ``se`` is the standard error with prompts as clusters, NaN with fewer than two prompts.
    """

    mean: float
    se: float
    ci_low: float
    ci_high: float
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


def interval(
    value: float, se: float, n_clusters: int, *, kind: Kind = "number", n: int | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a figure from its standard error: the one rule for all figures but the weights.

    * ``number``: Student's t with one degree of freedom less than there are clusters.
    * ``share``: Wilson's interval at the effective number of observations value (1 - value) / se^2, kept between the
      clusters and ``n``, with the quantile of Student's t (Korn and Graubard 1998 for the idea). It stays within 0 and
      1, and has a width where every observation is alike.
    * ``correlation``: Student's t on Fisher's scale, artanh, so that it stays within -1 and 1.

    Simulations with 5 to 50 clusters are in the tests.

    Args:
        se: its standard error with the clusters as the units drawn; for a correlation, on Fisher's scale.
        n_clusters: units that were drawn.
        n: observations, the most that a share can be worth.
        level: of the interval; :func:`simultaneous` for several that are read together.

    Returns:
        lower and upper end; NaN with fewer than :data:`MINIMUM_PROMPTS` clusters, and where clusters do not differ at
        all (but for shares), which does not mean that others would not.
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
    """Return the level of each of several intervals that all hold together with 95 % (Bonferroni)."""
    return 1 - (1 - 0.95) / max(number, 1)


def clustered_mean(values: npt.ArrayLike, prompts: Sequence[str] | npt.ArrayLike, *, level: float = 0.95) -> Mean:
    """Return mean over clips with a standard error that takes the prompts as the units drawn.

    se = sqrt(C / (C - 1) * sum over prompts of (sum of the prompt's residuals)^2) / n, with C prompts and n clips (the
    cluster-robust variance of a mean; Liang and Zeger 1986). With one clip a prompt it is the usual s / sqrt(n).
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
    """Gain over a baseline on the same prompts: mean over prompts of the difference of the prompt's means.

    The interval is Student's t over the prompts' differences. These are means of several clips each and so close to
    normal, and with the ten to fifty prompts of an evaluation the t quantile has the right width, where a percentile
    bootstrap over so few units is too narrow; it also needs no seed.

    Raises:
        InputError: the two sides do not have the same prompts.
    """
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
    se = float(difference.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    return Gain(mean, se, *interval(mean, se, n, level=level), n)


def win_rate(
    difference: npt.ArrayLike,
    prompts: Sequence[str] | npt.ArrayLike,
    *,
    crossed: tuple[float, int] | None = None,
    tolerance: float = 1e-9,
) -> WinRate:
    """Return share of comparisons won, ties counting half, with the interval of :func:`interval`.

    Args:
        difference: reward of the policy's clip minus that of the baseline's, [comparisons].
        crossed: variance of the rate by units that are crossed with prompts, such as the people who judged, and their
            number. It is added to that by prompt (two-way clusters; Cameron, Gelbach and Miller 2011, without their
            deduction of the common part, which would need every combination to occur often).
        tolerance: differences of at most this size are ties.
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
    """Interval of a statistic when prompts are drawn with replacement.

    The replicates give the standard error, times sqrt(C / (C - 1)) for C prompts, and :func:`interval` the ends. Their
    percentiles would be too narrow with few prompts, and empty where every prompt is alike.

    Args:
        statistic: called with the positions of the rows in a replicate; gives one number or several.
        kinds: what each number is; ``number`` where there is none.

    Returns:
        array [2] or [2, statistics]: lower and upper end, NaN where there is none: see :func:`interval`, and where more
        than one in twenty replicates has no finite value.
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
    """Return the prompt of each pair, or the first of all prompts that are linked by clips they share.

    A clip that was compared under several prompts makes their pairs dependent, so that they are one unit.
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
            remedy="Leave out clips without a reward",
            row=int(np.flatnonzero(~np.isfinite(x))[0]) + 1,
        )
    unique, codes = np.unique(names, return_inverse=True)
    return x, codes.astype(np.int64), len(unique)


def _variance(residuals: FloatArray, codes: npt.NDArray[np.int64]) -> float:
    """Cluster-robust variance of a sum of residuals."""
    sums = np.bincount(codes, weights=residuals)
    return float(len(sums) / max(len(sums) - 1, 1) * (sums @ sums))


def _sorted_names(prompts: Sequence[str] | npt.ArrayLike) -> list[str]:
    return [str(name) for name in np.unique(np.asarray(prompts))]
