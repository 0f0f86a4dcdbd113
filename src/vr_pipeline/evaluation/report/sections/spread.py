"""Diversity of each policy's clips, and their drift from the original's."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Chart, Mark, Row
from vr_pipeline.evaluation.report.elements import Cells, Finding, Table, interval, number
from vr_pipeline.evaluation.report.wording import percent, plain
from vr_pipeline.generators.policy import ORIGINAL
from vr_pipeline.statistics.clustered import Mean, clustered_mean, paired_gain

_LOST = 0.2
"""Lost share of the original's diversity above which the page warns."""

_WHAT = {"diversity": "Diversity", "drift": "Drift"}


def make(titles: Mapping[str, str], measured: pd.DataFrame) -> list[Markup]:
    """Show diversity and drift of every policy with intervals by prompt, and warn of lost diversity."""
    known = {name: measured[measured["policy"] == name] for name in titles if name in set(measured["policy"])}
    figures = {
        what: {
            name: clustered_mean(own[what].to_numpy(), own["prompt_id"].to_numpy())
            for name, part in known.items()
            if len(own := part.dropna(subset=what))
        }
        for what in _WHAT
    }
    charts_of = [_chart(titles, what, of_policies) for what, of_policies in figures.items() if of_policies]
    if not charts_of:
        return []
    rows: list[Cells] = [
        [_WHAT[what], titles[name], number(mean.mean, 4), interval(mean.ci_low, mean.ci_high, 4)]
        for what, of_policies in figures.items()
        for name, mean in of_policies.items()
    ]
    text = (
        "Diversity is the difference between clips of a prompt; drift is the difference between a clip and the "
        "original's clip of the same seed. Both are root mean squares of pixels, as shares of their range, of clips "
        "reduced to 16 x 16 cells and 8 frames, with 95 % intervals by prompt. Low diversity means that the clips of a "
        "prompt look alike, which fewer flaws can also cause; drift grows with training and does not measure quality."
    )
    columns = ["What", "Policy", "Difference", "95 % interval"]
    table = Table("Diversity and drift", columns, rows, words=("Policy",))
    remarks = _remarks(titles, known)
    return [
        elements.paragraph(text),
        *([elements.findings(remarks)] if remarks else []),
        elements.charts(charts_of),
        elements.table(table),
    ]


def _chart(titles: Mapping[str, str], what: str, figures: Mapping[str, Mean]) -> Chart:
    rows = []
    for place, name in enumerate(titles):
        if name in figures:
            mean = figures[name]
            tip = f"{titles[name]}: {plain(mean.mean, 4)} ({plain(mean.ci_low, 4)} to {plain(mean.ci_high, 4)})"
            rows.append(Row(titles[name], [Mark(place, mean.mean, mean.ci_low, mean.ci_high, tip)]))
    return charts.intervals_chart(_WHAT[what], rows, axis="difference of pixels, 95 % interval")


def _remarks(titles: Mapping[str, str], known: Mapping[str, pd.DataFrame]) -> list[Finding]:
    remarks = []
    original = known.get(ORIGINAL, pd.DataFrame(columns=["prompt_id", "diversity"])).dropna(subset="diversity")
    before = float(original["diversity"].mean()) if len(original) else 0.0
    for name, part in known.items():
        own = part.dropna(subset="diversity")
        if name == ORIGINAL or not before or not len(own):
            continue
        change = paired_gain(own["diversity"], own["prompt_id"], original["diversity"], original["prompt_id"])
        if change.ci_high < -_LOST * before:
            text = (
                f"{titles[name]} lost {percent(-change.mean / before)} of the original's diversity (95 % interval "
                f"{percent(-change.ci_high / before)} to {percent(-change.ci_low / before)}): its clips of a prompt "
                "look more alike."
            )
            remarks.append(Finding(text, "warning"))
    return remarks
