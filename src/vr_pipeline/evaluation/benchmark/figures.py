"""Agreement of every reward with people, by source, criterion, pair of generators and length, with intervals.

Figures: ``tau`` predicts ties up to a threshold chosen on the validation pairs of the source (Deutsch, Foster and
Freitag 2023, arXiv 2305.14324); ``tau_best`` uses the best threshold on the reported pairs; ``diff`` excludes human
ties; ``three_way_accuracy``, called tau by UnifiedReward and others, is the share of correct answers of three;
``kendall`` is tau-b between differences and labels within a prompt, averaged over prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.evaluation.benchmark.config import RewardBenchmarkParameters
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.statistics.clustered import bootstrap_by_prompt, clustered_mean, simultaneous
from vr_pipeline.statistics.correlation import preference_correlations
from vr_pipeline.statistics.three_way import three_way

FIGURES = ("tau", "tau_best", "diff", "three_way_accuracy", "kendall")
ALL = "all"
LENGTHS = ("shortest third", "middle third", "longest third")

Rows = npt.NDArray[np.int64]


def benchmark_figures(judged: pd.DataFrame, parameters: RewardBenchmarkParameters) -> pd.DataFrame:
    """Return the figures of every reward on the test pairs.

    Args:
        judged: from :func:`~vr_pipeline.evaluation.benchmark.pairs.judged_pairs`.
        parameters: intervals, and the smallest group.

    Returns:
        one row per reward, source, criterion and group (``all``, a pair of generators, a third of lengths): the figures
        of :data:`FIGURES` with ``<figure>_low`` and ``<figure>_high`` (95 %, by prompt), threshold, n, n_ties,
        prompts; null for undefined figures.
    """
    rows = []
    for (reward, source, criterion), table in judged.groupby(["reward", "source", "criterion"], sort=False):
        names = {"reward": reward, "source": source, "criterion": criterion, "dimension": table["dimension"].iloc[0]}
        threshold = _threshold(table[table["split"] == "validation"])
        tested = table[table["split"] == "test"]
        for kind, group, part in _groups(tested, parameters.smallest_group):
            samples = parameters.bootstrap_samples if kind == ALL else 0
            rows.append({**names, "by": kind, "group": group, **_figures(part, threshold, samples, parameters.seed)})
    return pd.DataFrame(rows)


def _threshold(validation: pd.DataFrame) -> float | None:
    """Return the best tie threshold on validation pairs; None without pairs."""
    if not len(validation):
        return None
    return pairwise_accuracy(validation["difference"], list(validation["preference"])).epsilon


def _groups(table: pd.DataFrame, smallest: int) -> Iterator[tuple[str, str, pd.DataFrame]]:
    if not len(table):
        return
    yield ALL, ALL, table
    by_generator = table.groupby("generators", sort=True)
    if by_generator.ngroups > 1:
        for name, part in by_generator:
            if len(part) >= smallest:
                yield "generators", str(name), part
    edges = np.quantile(table["seconds"], [1 / 3, 2 / 3])
    if table["seconds"].nunique() < len(LENGTHS) or edges[0] == edges[1]:
        return
    place = np.searchsorted(edges, table["seconds"], side="left")
    for number, name in enumerate(LENGTHS):
        part = table[place == number]
        if len(part) >= smallest:
            yield "length", f"{name}, {part['seconds'].min():.1f} to {part['seconds'].max():.1f} s", part


def answers_of(table: pd.DataFrame, threshold: float | None) -> npt.NDArray[np.str_]:
    """Return 'a', 'b' or 'tie' for every pair: the model's answer, else by the threshold (0 without one)."""
    difference = table["difference"].to_numpy(dtype=np.float64)
    by_size = np.where(np.abs(difference) <= (threshold or 0.0), "tie", np.where(difference > 0, "a", "b"))
    own = table["answer"].to_numpy(dtype=str)
    return np.where(own == "", by_size, own)


def _figures(table: pd.DataFrame, threshold: float | None, samples: int, seed: int) -> dict[str, Any]:
    difference = table["difference"].to_numpy(dtype=np.float64)
    labels = table["preference"].to_numpy(dtype=str)
    answer, prompts = answers_of(table, threshold), table["prompt_id"].to_numpy(dtype=str)

    def figures(rows: Rows) -> list[float]:
        d, y = difference[rows], labels[rows]
        fixed = math.nan if threshold is None else pairwise_accuracy(d, y, epsilon=threshold).tau
        best = pairwise_accuracy(d, y)
        return [fixed, best.tau, best.diff, three_way(answer[rows], y).three_way_accuracy]

    everything = np.arange(len(labels))
    values = dict(zip(FIGURES[:4], figures(everything), strict=True))
    ends = dict.fromkeys(FIGURES, (math.nan, math.nan))
    if samples:
        found = bootstrap_by_prompt(figures, table["unit"].to_numpy(), kinds=("share",) * 4, samples=samples, seed=seed)
        ends |= {name: (float(low), float(high)) for name, (low, high) in zip(FIGURES[:4], found.T, strict=True)}
    within = _kendall_within(difference, labels, prompts)
    mean = clustered_mean(within, np.arange(len(within)))
    # Student's t ignores that the mean is between -1 and 1.
    values["kendall"], ends["kendall"] = (
        mean.mean,
        (float(np.clip(mean.ci_low, -1, 1)), float(np.clip(mean.ci_high, -1, 1))),
    )
    row: dict[str, Any] = {}
    for name in FIGURES:
        row |= {name: values[name], f"{name}_low": ends[name][0], f"{name}_high": ends[name][1]}
    known = {name: None if math.isnan(value) else value for name, value in row.items()}
    counts = {"n": len(labels), "n_ties": int((labels == "tie").sum()), "prompts": int(table["unit"].nunique())}
    return {**known, "threshold": threshold, **counts, "tie_share": float((answer == "tie").mean())}


def _kendall_within(
    difference: npt.NDArray[np.float64], labels: npt.NDArray[np.str_], prompts: npt.NDArray[np.str_]
) -> npt.NDArray[np.float64]:
    """Return Kendall's tau-b of every prompt that has one."""
    found = []
    for prompt in np.unique(prompts):
        rows = np.flatnonzero(prompts == prompt)
        value = preference_correlations(difference[rows], labels[rows])["kendall"]
        if not math.isnan(value):
            found.append(value)
    return np.array(found)


def benchmark_differences(judged: pd.DataFrame, figures: pd.DataFrame) -> pd.DataFrame:
    """Return paired differences between rewards on the same pairs.

    Args:
        judged: from :func:`~vr_pipeline.evaluation.benchmark.pairs.judged_pairs`.
        figures: from :func:`benchmark_figures`, for the thresholds.

    Returns:
        source, criterion, first, second, difference (three-way accuracy of the first minus that of the second on pairs
        that both judged), ci_low and ci_high (by prompt, Bonferroni-corrected for the pairs of rewards within source
        and criterion; null without interval), n, prompts.
    """
    whole = figures[figures["by"] == ALL]
    thresholds = {
        (row["reward"], row["source"], row["criterion"]): row["threshold"] for row in whole.to_dict("records")
    }
    tested = judged[judged["split"] == "test"]
    rows = []
    for (source, criterion), table in tested.groupby(["source", "criterion"], sort=False):
        right = {}
        for reward, own in table.groupby("reward", sort=False):
            threshold = thresholds[(reward, source, criterion)]
            answer = answers_of(own, None if pd.isna(threshold) else float(threshold))
            right[reward] = pd.Series((answer == own["preference"].to_numpy(dtype=str)).astype(float), own["pair_id"])
        units = table.drop_duplicates("pair_id").set_index("pair_id")["unit"]
        between = list(combinations(right, 2))
        for first, second in between:
            both = pd.concat([right[first], right[second]], axis=1, join="inner")
            gap = (both.iloc[:, 0] - both.iloc[:, 1]).to_numpy()
            mean = clustered_mean(gap, units.loc[both.index].to_numpy(), level=simultaneous(len(between)))
            ends = {"ci_low": mean.ci_low, "ci_high": mean.ci_high, "difference": mean.mean}
            names = {"source": source, "criterion": criterion, "first": first, "second": second}
            known = {name: None if math.isnan(value) else value for name, value in ends.items()}
            rows.append({**names, **known, "n": len(both), "prompts": int(units.loc[both.index].nunique())})
    columns = ["source", "criterion", "first", "second", "difference", "ci_low", "ci_high", "n", "prompts"]
    return pd.DataFrame(rows, columns=columns)


def benchmark_biases(judged: pd.DataFrame, preferences: pd.DataFrame) -> pd.DataFrame:
    """Return the position and length bias of people and rewards.

    Args:
        judged: from :func:`~vr_pipeline.evaluation.benchmark.pairs.judged_pairs`.
        preferences: of all sources, in the order shown.

    Returns:
        source, who ('people' or a reward), first_share (share of answers without tie for the clip shown first; people
        only), position_bias (mean size for models that compare; 0 for scores) and length (Spearman's correlation of
        the difference in length with the answers; null if one is constant).
    """
    rows = []
    whole = judged[judged["criterion"] == "preference"]
    for source, shown in preferences.groupby("source", sort=True):
        decided = shown[shown["preference"] != "tie"]
        of_source = whole[whole["source"] == source]
        pairs = of_source.drop_duplicates("pair_id")
        level = (pairs["preference"] == "a").astype(float) - (pairs["preference"] == "b")
        first = float((decided["preference"] == "a").mean()) if len(decided) else None
        people = {"source": source, "who": "people", "first_share": first, "position_bias": None}
        rows.append({**people, "length": _spearman(level, pairs["length_gap"])})
        for reward, own in of_source.groupby("reward", sort=False):
            bias = float(own["position_bias"].abs().mean())
            names = {"source": source, "who": reward, "first_share": None, "position_bias": bias}
            rows.append({**names, "length": _spearman(own["difference"], own["length_gap"])})
    return pd.DataFrame(rows, columns=["source", "who", "first_share", "position_bias", "length"])


def _spearman(answer: pd.Series, gap: pd.Series) -> float | None:
    """Return Spearman's correlation with each pair in both orders."""
    from scipy.stats import spearmanr

    x = np.r_[answer.to_numpy(dtype=np.float64), -answer.to_numpy(dtype=np.float64)]
    y = np.r_[gap.to_numpy(dtype=np.float64), -gap.to_numpy(dtype=np.float64)]
    return None if not len(x) or np.ptp(x) == 0 or np.ptp(y) == 0 else float(spearmanr(x, y).statistic)


def leaderboard(figures: pd.DataFrame, described: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per reward and source, as in published tables.

    Args:
        figures: from :func:`benchmark_figures`.
        described: type, identity, dimensions and sampling by reward.

    Returns:
        reward, source, criterion, judge (type and identity), frames, tie rule, n, and every figure with its interval.
    """
    rows = []
    for row in figures[figures["by"] == ALL].to_dict("records"):
        shown = {name: _rounded([row[name], row[f"{name}_low"], row[f"{name}_high"]]) for name in FIGURES}
        tie_rule = "none: no validation pairs" if pd.isna(row["threshold"]) else f"difference <= {row['threshold']:.6g}"
        named = {key: row[key] for key in ("reward", "source", "criterion", "dimension")}
        rows.append({**named, **described.get(row["reward"], {}), "tie_rule": tie_rule, "n": row["n"], **shown})
    return rows


def _rounded(values: Sequence[float | None]) -> dict[str, float | None]:
    names = ("value", "low", "high")
    return {
        name: None if value is None or pd.isna(value) else round(float(value), 6)
        for name, value in zip(names, values, strict=True)
    }
