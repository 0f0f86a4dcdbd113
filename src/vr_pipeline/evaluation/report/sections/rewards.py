"""Rewards by dimension and policy, and gains of each policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.metrics import rewards_by_source
from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Chart, Mark, Row
from vr_pipeline.evaluation.report.comparison import SOURCES, Comparisons, compare_all, dimensions_of, witness
from vr_pipeline.evaluation.report.elements import Cell, Cells, Table, number
from vr_pipeline.evaluation.report.sections.deviations import deviations_chart
from vr_pipeline.evaluation.report.wording import as_number, plain
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import interval


def make(
    titles: Mapping[str, str],
    metrics: Mapping[str, Any],
    judge_rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
    auditor_rewards: pd.DataFrame | None,
    deviations: pd.DataFrame | None,
) -> list[Markup]:
    """Show charts and tables of every source, then gains over the original; nothing without a reward."""
    by_source = rewards_by_source(judge_rewards, oracle_rewards, auditor_rewards)
    if not by_source:
        return []
    against_original, between = compare_all(by_source, list(titles))
    dimensions = {source: _dimensions(metrics, table, source) for source, table in by_source.items()}
    scales = "Sources have different scales: compare policies within one chart, not charts with each other."
    return [
        *([elements.paragraph(scales)] if len(by_source) > 1 else []),
        elements.charts([_rewards_chart(titles, metrics, dimensions[source], source) for source in by_source]),
        elements.paragraph(
            Markup(
                "Bars are means over clips, whiskers 95 % intervals (Student's t over prompts). All policies had the "
                "same prompts and seeds, so overlapping whiskers here do not mean that there is no difference: use the "
                "prompt-paired gains below instead."
            ),
            note=True,
        ),
        *(elements.table(_rewards_table(titles, metrics, dimensions[source], source)) for source in by_source),
        elements.heading("Gains over the original"),
        elements.charts([_gain_chart(titles, against_original, dimensions[source], source) for source in by_source]),
        elements.paragraph(
            "An interval that includes 0 shows no difference. Those by dimension hold jointly for all policies and "
            "dimensions (Bonferroni).",
            note=True,
        ),
        elements.table(_gains_table(titles, against_original, between)),
        *_by_sub_dimension(titles, deviations),
    ]


def _by_sub_dimension(titles: Mapping[str, str], deviations: pd.DataFrame | None) -> list[Markup]:
    if deviations is None:
        return []
    by_policy = dict(iter(deviations.groupby("policy")))
    places = {name: place for place, name in enumerate(titles) if name in by_policy}
    tables = {place: (titles[name], by_policy[name]) for name, place in places.items()}
    return [elements.chart(deviations_chart("Share of yes by sub-dimension, minus the original's", tables))]


def _dimensions(metrics: Mapping[str, Any], rewards: pd.DataFrame, source: str) -> list[str]:
    """Return the dimensions of a source.

    Raises:
        InputError: rewards and metrics have different dimensions.
    """
    names = dimensions_of(rewards)
    for name in metrics["policies"][ORIGINAL][source]["dimensions"]:
        if name not in names:
            raise InputError(
                f"the metrics have a dimension '{name}', which the rewards lack",
                remedy="Run evaluation again after a change of the reward",
                file="evaluation_rewards" if source == "judge" else f"evaluation_{source}_rewards",
                field=f"dim_{name}",
            )
    return names


def _rewards_chart(
    titles: Mapping[str, str], metrics: Mapping[str, Any], dimensions: Sequence[str], source: str
) -> Chart:
    rows = []
    for dimension in dimensions:
        marks = []
        for series, (policy, name) in enumerate(titles.items()):
            record = metrics["policies"][policy][source]["dimensions"][dimension]
            mean, se = as_number(record["mean"]), as_number(record["se"])
            tip = f"{name}, {dimension}: {plain(mean, 3)} ± {plain(se, 3)}"
            marks.append(Mark(series, mean, *interval(mean, se, int(metrics["clips"]["prompts"])), tip))
        rows.append(Row(dimension, marks))
    return charts.intervals_chart(
        f"{SOURCES[source]}: reward by dimension",
        rows,
        axis="mean reward, 95 % interval of each",
        series=list(enumerate(titles.values())),
        bars=True,
    )


def _rewards_table(
    titles: Mapping[str, str], metrics: Mapping[str, Any], dimensions: Sequence[str], source: str
) -> Table:
    """Return mean and standard error of policies by dimension and total (the layout of the paper's Table 4)."""
    rows: list[Cells] = []
    for policy, name in titles.items():
        record = metrics["policies"][policy][source]
        entries = (*(record["dimensions"][dimension] for dimension in dimensions), record["total"])
        rows.append([name, *(number(entry["mean"], 3, spread=as_number(entry["se"])) for entry in entries)])
    return Table(
        f"{SOURCES[source]}: mean reward ± standard error (prompts as clusters), as in Table 4 of the paper",
        ["Policy", *dimensions, "Total"],
        rows,
    )


def _gain_chart(
    titles: Mapping[str, str], against_original: Comparisons, dimensions: Sequence[str], source: str
) -> Chart:
    trained = [(series, policy) for series, policy in enumerate(titles) if policy in against_original]
    rows = []
    for label in ("total", *dimensions):
        marks = []
        for series, policy in trained:
            comparison = against_original[policy][source]
            gain = comparison.total if label == "total" else comparison.dimensions[label]
            marks.append(Mark(series, gain.mean, gain.low, gain.high, f"{titles[policy]}, {label}: {gain}"))
        rows.append(Row(label, marks))
    return charts.intervals_chart(
        f"{SOURCES[source]}: gain over the original",
        rows,
        axis="gain, 95 % interval; dimensions: jointly",
        series=[(series, titles[policy]) for series, policy in trained],
    )


def _gains_table(titles: Mapping[str, str], against_original: Comparisons, between: Comparisons) -> Table:
    """Return gains in total reward with intervals, in the reward's units and in deviations of the original's clips."""
    baseline = next(name for name in titles if name != ORIGINAL)
    entries = [
        (f"{titles[policy]} − {titles[other]}", source, comparison.total, comparison.effect)
        for comparisons, other in ((against_original, ORIGINAL), (between, baseline))
        for policy, sources in comparisons.items()
        for source, comparison in sources.items()
    ]
    says = {"above": "higher", "below": "lower", "unclear": "no difference shown", "unknown": "no interval"}
    # Only the witness's reading is coloured: training maximised the judge's reward.
    trusted = witness([source for _, source, *_ in entries])
    colours = {"above": "good", "below": "warning"}
    return Table(
        "Differences of total reward, averaged over prompts, each with its 95 % interval (Student's t over prompts); "
        "effect size: in standard deviations of the prompts' differences",
        ["Compared", "By", "Difference", "95 % interval", "Effect size", "95 % interval of it", "Reading"],
        [
            [
                label,
                SOURCES[source],
                number(gain.mean, 3, sign=True),
                elements.interval(gain.low, gain.high, 3, sign=True),
                number(effect.mean, 2, sign=True),
                elements.interval(effect.low, effect.high, 2, sign=True),
                Cell(says[gain.verdict()], emphasis=colours.get(gain.verdict(), "") if source == trusted else ""),
            ]
            for label, source, gain, effect in entries
        ],
        words=("By", "Reading"),
    )
