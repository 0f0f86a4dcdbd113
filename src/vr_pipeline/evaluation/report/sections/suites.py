"""Scores of public suites: means and gains by dimension, with missing scores shown as missing."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Mark, Row
from vr_pipeline.evaluation.report.elements import Cell, Cells, Table, count, interval, number
from vr_pipeline.evaluation.suites.table import suite_table
from vr_pipeline.generators.policy import ORIGINAL


def make(titles: Mapping[str, str], suite_scores: pd.DataFrame | None) -> list[Markup]:
    """Show gains over the original and means of every suite; nothing without imported scores."""
    return [] if suite_scores is None else tables(suite_scores, titles, ORIGINAL)


def tables(scores: pd.DataFrame, titles: Mapping[str, str], baseline: str) -> list[Markup]:
    """Return chart and table of every suite.

    Args:
        scores: from :mod:`vr_pipeline.evaluation.suites.results`.
        titles: of policies; others are shown by name.
        baseline: the policy to compare with.
    """
    over = titles.get(baseline, baseline).lower()
    made = [
        elements.paragraph(
            f"Means over clips with 95 % intervals by prompt, and gains over {over} on shared prompts. A dimension "
            "without scores is missing here; the suites' totals count it as 0.",
            note=True,
        )
    ]
    for suite, table in suite_table(scores, baseline).groupby("suite", sort=True):
        gains = table[table["gain"].notna()]
        if len(gains):
            made.append(elements.chart(_chart(f"{suite}: gain over {over}", gains, titles)))
        made.append(elements.table(_table(str(suite), table, titles, baseline)))
    return made


def _chart(title: str, gains: pd.DataFrame, titles: Mapping[str, str]) -> charts.Chart:
    policies = list(dict.fromkeys(gains["policy"]))
    series = {name: place for place, name in enumerate(policies, start=1)}
    rows = []
    for dimension, own in gains.groupby("dimension", sort=True):
        marks = [
            Mark(
                series[row["policy"]],
                float(row["gain"]),
                low=_drawn(row["gain_low"]),
                high=_drawn(row["gain_high"]),
                tip=f"{titles.get(row['policy'], row['policy'])}, {dimension}: {row['gain']:+.4f}",
            )
            for row in own.to_dict("records")
        ]
        rows.append(Row(str(dimension), marks))
    names = [(place, titles.get(name, name)) for name, place in series.items()]
    return charts.intervals_chart(title, rows, axis="gain, 95 % interval", series=names)


def _drawn(value: object) -> float:
    return math.nan if pd.isna(value) else float(value)  # type: ignore[call-overload, arg-type]


def _table(suite: str, table: pd.DataFrame, titles: Mapping[str, str], baseline: str) -> Table:
    rows: list[Cells] = []
    for row in table.to_dict("records"):
        name = titles.get(row["policy"], row["policy"])
        if row["clips"] == 0:
            rows.append([row["dimension"], name, Cell("missing"), Cell(""), Cell(""), Cell(""), count(0), count(0)])
            continue
        mean, low, high, gain, gain_low, gain_high = (
            None if pd.isna(row[key]) else float(row[key])
            for key in ("mean", "ci_low", "ci_high", "gain", "gain_low", "gain_high")
        )
        is_baseline = row["policy"] == baseline
        of_gain = (
            [Cell(""), Cell("")] if is_baseline else [number(gain, 4, sign=True), interval(gain_low, gain_high, 4)]
        )
        counts = [count(row["prompts"]), count(row["clips"])]
        rows.append([row["dimension"], name, number(mean, 4), interval(low, high, 4), *of_gain, *counts])
    columns = ["Dimension", "Policy", "Mean", "95 % interval", "Gain", "95 % interval of the gain", "Prompts", "Clips"]
    return Table(f"{suite}: scores by dimension", columns, rows, words=["Policy"])
