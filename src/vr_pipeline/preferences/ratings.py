"""Ratings of generators from comparisons of their clips (Bradley and Terry 1952)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.statistics.clustered import bootstrap_by_prompt, win_rate
from vr_pipeline.statistics.labels import FloatArray, checked_preference


def bradley_terry(
    first: Sequence[str],
    second: Sequence[str],
    preference: Sequence[str] | npt.ArrayLike,
    prompts: Sequence[str] | npt.ArrayLike,
    *,
    prior: float = 1e-3,
    samples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:
    """Return ratings whose differences are the log odds that one generator's clip is preferred to another's.

    Maximises the likelihood sigmoid(r_i - r_j) of the comparisons, with ties as half a win for each, minus
    prior / 2 * sum of r^2. The small prior fixes the origin (ratings add up to 0).

    Ratings are finite only in a set of generators that all beat each other, directly or through others (Ford 1957).
    The largest such set is rated from its comparisons; other generators have a reason instead.

    Args:
        first, second: generators of clip A and clip B of each comparison.
        preference: 'a', 'b' or 'tie'.
        prompts: prompt of each comparison, drawn by the bootstrap.
        prior: weight of the prior, in comparisons.
        samples: bootstrap replicates; 0 for no intervals.
        seed: of the bootstrap.

    Returns:
        generator, rating, ci_low, ci_high (95 %, see :func:`~vr_pipeline.statistics.clustered.bootstrap_by_prompt`),
        elo (1500 + 400 / ln 10 * rating), comparisons, points (wins plus half the ties), reason (without rating);
        sorted by rating, then by share of points.

    Raises:
        InputError: there are no comparisons between different generators.
    """
    labels = checked_preference(preference, len(first))
    a, b = np.asarray(first, dtype=str), np.asarray(second, dtype=str)
    different = a != b
    if not different.any():
        raise InputError(
            "no comparison is between clips of two generators",
            remedy="Give preferences with generators (generator_a, generator_b)",
            field="generator_a",
        )
    names, codes = np.unique(np.r_[a[different], b[different]], return_inverse=True)
    i, j = codes[: len(codes) // 2], codes[len(codes) // 2 :]
    points = np.where(labels == "a", 1.0, np.where(labels == "b", 0.0, 0.5))[different]
    n = len(names)
    wins = _wins(i, j, points, n)
    rated = _rated(wins)
    rating, low, high = np.full((3, n), math.nan)
    if len(rated) > 1:
        place = np.full(n, -1)
        place[rated] = np.arange(len(rated))
        within = np.flatnonzero((place[i] >= 0) & (place[j] >= 0))
        a_, b_, won = place[i[within]], place[j[within]], points[within]
        whole = _maximise(_wins(a_, b_, won, len(rated)), prior)

        def replicate(rows: npt.NDArray[np.int64]) -> FloatArray:
            drawn = _wins(a_[rows], b_[rows], won[rows], len(rated))
            if len(_rated(drawn)) < len(rated):
                return np.full(len(rated), math.nan)
            return _maximise(drawn, prior, start=whole)

        rating[rated] = whole
        units = np.asarray(prompts)[different][within]
        low[rated], high[rated] = bootstrap_by_prompt(replicate, units, samples=samples, seed=seed)
    games = wins.sum(axis=0) + wins.sum(axis=1)
    share = wins.sum(axis=1) / games
    table = pd.DataFrame(
        {
            "generator": names,
            "rating": rating,
            "ci_low": low,
            "ci_high": high,
            "elo": 1500.0 + 400.0 / math.log(10.0) * rating,
            "comparisons": games.round().astype(np.int64),
            "points": wins.sum(axis=1),
            "reason": np.where(
                np.isfinite(rating),
                "",
                np.where(
                    share == 1,
                    "won every comparison",
                    np.where(share == 0, "lost every comparison", "not linked to the others by wins both ways"),
                ),
            ),
        }
    )
    order = np.lexsort((names, -share, -np.where(np.isfinite(rating), rating, -np.inf)))
    return table.iloc[order].reset_index(drop=True)


def win_rates(
    first: Sequence[str],
    second: Sequence[str],
    preference: Sequence[str] | npt.ArrayLike,
    prompts: Sequence[str] | npt.ArrayLike,
) -> list[dict[str, Any]]:
    """Return win rates between every two compared generators.

    Args:
        first, second: generators of clip A and clip B of each comparison; equal ones are ignored.
        preference: 'a', 'b' or 'tie'.
        prompts: prompt of each comparison, the unit of the interval.

    Returns:
        generator (first alphabetically), against, pairs, and
        :meth:`~vr_pipeline.statistics.clustered.WinRate.to_json` of the generator; sorted.
    """
    labels = checked_preference(preference, len(first))
    table = pd.DataFrame({"a": np.asarray(first, dtype=str), "b": np.asarray(second, dtype=str)})
    table["vote"] = np.where(labels == "a", 1.0, np.where(labels == "b", -1.0, 0.0))
    table["prompt"] = np.asarray(prompts)
    turned = table["a"] > table["b"]
    table.loc[turned, ["a", "b"]] = table.loc[turned, ["b", "a"]].to_numpy()
    table.loc[turned, "vote"] *= -1
    return [
        {"generator": one, "against": other, "pairs": len(own), **win_rate(own["vote"], own["prompt"]).to_json()}
        for (one, other), own in table[table["a"] != table["b"]].groupby(["a", "b"], sort=True)
    ]


def _rated(wins: FloatArray) -> npt.NDArray[np.int64]:
    """Return the largest set of generators linked by wins in both directions, or of equal sets that with most wins."""
    from scipy.sparse.csgraph import connected_components

    _, part = connected_components(wins > 0, directed=True, connection="strong")
    sets = [np.flatnonzero(part == number) for number in np.unique(part)]
    return max(sets, key=lambda members: (len(members), float(wins[np.ix_(members, members)].sum()), -int(members[0])))


def _wins(i: npt.NDArray[np.int64], j: npt.NDArray[np.int64], points: FloatArray, n: int) -> FloatArray:
    """Return the points of each generator against each other, [generators, generators]."""
    wins = np.bincount(i * n + j, weights=points, minlength=n * n)
    losses = np.bincount(j * n + i, weights=1 - points, minlength=n * n)
    return np.asarray(wins + losses, dtype=np.float64).reshape(n, n)


def _maximise(wins: FloatArray, prior: float, *, start: FloatArray | None = None) -> FloatArray:
    """Return the optimum of the concave penalised likelihood by Newton's method with halved steps."""
    n = len(wins)
    rating = np.zeros(n) if start is None else start.copy()
    games = wins + wins.T

    def objective(r: FloatArray) -> float:
        return float(-(wins * np.logaddexp(0.0, r[None, :] - r[:, None])).sum() - prior / 2 * r @ r)

    current = objective(rating)
    for _ in range(200):
        chance = 1.0 / (1.0 + np.exp(rating[None, :] - rating[:, None]))
        gradient = (wins - games * chance).sum(axis=1) - prior * rating
        if np.abs(gradient).max() < 1e-9 * max(1.0, games.sum()):
            break
        information = games * chance * (1 - chance)
        curvature = np.diag(information.sum(axis=1) + prior) - information
        step = np.linalg.lstsq(curvature, gradient)[0]  # singular without a prior
        size = 1.0
        while (proposed := objective(rating + size * step)) < current and size > 1e-8:
            size /= 2
        rating, current = rating + size * step, proposed
    return rating - rating.mean()
