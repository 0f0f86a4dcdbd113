"""Rewards by dimension and policy, and what each policy gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Chart, Mark, Row
from vr_pipeline.evaluation.report.comparison import SOURCES, Comparisons, compare_all, dimensions_of, rewards_by_source
from vr_pipeline.evaluation.report.elements import Cell, Cells, Table, number
from vr_pipeline.evaluation.report.wording import as_number, plain
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import interval


def make(
    titles: Mapping[str, str],
    metrics: Mapping[str, Any],
    judge_rewards: pd.DataFrame,
    oracle_rewards: pd.DataFrame,
) -> list[Markup]:
    """Show charts and tables of every source, then the gains over the original; nothing where there is no reward."""
    by_source = rewards_by_source(judge_rewards, oracle_rewards)
    if not by_source:
        return []
    against_original, between = compare_all(by_source, list(titles))
    dimensions = {source: _dimensions(metrics, table, source) for source, table in by_source.items()}
    return [
        elements.paragraph(
            "Rewards of judge and oracle have different scales: compare policies within one chart, not charts with "
            "each other."
        ),
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
            "An interval that reaches over the line at 0 shows no difference. The intervals by dimension are not "
            "corrected for their number: with many dimensions, one in twenty lies off 0 by chance.",
            note=True,
        ),
        elements.table(_gains_table(titles, against_original, between)),
    ]


def _dimensions(metrics: Mapping[str, Any], rewards: pd.DataFrame, source: str) -> list[str]:
    """Return the dimensions of a source.

    Raises:
        InputError: the rewards are not those of the metrics.
    """
    names = dimensions_of(rewards)
    for name in metrics["policies"][ORIGINAL][source]["dimensions"]:
        if name not in names:
            raise InputError(
                f"the rewards have no dimension '{name}', the metrics have",
                remedy="run evaluation again after a change of the reward",
                file="evaluation_rewards" if source == "judge" else "evaluation_oracle_rewards",
                field=f"dim_{name}",
            )
    return names


def _rewards_chart(
    titles: Mapping[str, str], metrics: Mapping[str, Any], dimensions: Sequence[str], source: str
) -> Chart:
    """Draw the mean reward of every policy by dimension, with 95 % intervals."""
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
        description="; ".join(
            f"{row.label}: "
            + ", ".join(f"{name} {plain(m.value)}" for name, m in zip(titles.values(), row.marks, strict=True))
            for row in rows
        ),
        bars=True,
    )


def _rewards_table(
    titles: Mapping[str, str], metrics: Mapping[str, Any], dimensions: Sequence[str], source: str
) -> Table:
    """List policies by dimension and total, mean with standard error (the layout of the paper's Table 4)."""
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
    """Draw the gain over the original in total and by dimension."""
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
        axis="gain, 95 % interval; dimensions: together",
        series=[(series, titles[policy]) for series, policy in trained],
    )


def _gains_table(titles: Mapping[str, str], against_original: Comparisons, between: Comparisons) -> Table:
    """List gains in total reward with intervals, in the reward's units and in deviations of the original's clips."""
    baseline = next(name for name in titles if name != ORIGINAL)
    entries = [
        (f"{titles[policy]} − {titles[other]}", source, comparison.total, comparison.effect)
        for comparisons, other in ((against_original, ORIGINAL), (between, baseline))
        for policy, sources in comparisons.items()
        for source, comparison in sources.items()
    ]
    says = {"above": "higher", "below": "lower", "unclear": "no difference shown", "unknown": "no interval"}
    # Only the oracle's word is coloured: the judge's gain is what training asked for.
    colours = {"above": "good", "below": "warning"}
    return Table(
        "Differences of total reward, averaged over prompts, each with its 95 % interval (Student's t over prompts)",
        ["Compared", "By", "Difference", "95 % interval", "In standard deviations", "Reading"],
        [
            [
                label,
                SOURCES[source],
                number(gain.mean, 3, sign=True),
                elements.interval(gain.low, gain.high, 3, sign=True),
                number(effect, 2, sign=True),
                Cell(says[gain.verdict()], emphasis=colours.get(gain.verdict(), "") if source == "oracle" else ""),
            ]
            for label, source, gain, effect in entries
        ],
        words=("By", "Reading"),
    )
