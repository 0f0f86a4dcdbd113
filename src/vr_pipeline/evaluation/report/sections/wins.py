"""Win rates of policies against the original on the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Mark, Row
from vr_pipeline.evaluation.report.comparison import SOURCES, Interval
from vr_pipeline.evaluation.report.elements import Cells, Table
from vr_pipeline.evaluation.report.wording import percent


def make(titles: Mapping[str, str], metrics: Mapping[str, Any]) -> list[Markup]:
    """Show win rates of every policy by source; nothing without a reward."""
    rows: list[Row] = []
    cells: list[Cells] = []
    for series, (policy, title) in enumerate(titles.items()):
        won = metrics["win_rate"].get(policy, {})
        for source, record in ((name, won[name]) for name in SOURCES if name in won):
            rate = Interval.of(record, "rate")
            name = f"{title}, {source}"
            tip = f"{name}: {percent(rate.mean)} ({percent(rate.low)} to {percent(rate.high)})"
            rows.append(Row(name, [Mark(series, rate.mean, rate.low, rate.high, tip)]))
            counts = (elements.count(record[key]) for key in ("wins", "ties", "losses"))
            interval = elements.share_interval(rate.low, rate.high)
            cells.append([title, SOURCES[source], elements.share(rate.mean), interval, *counts])
    if not rows:
        return []
    title = "Win rate against the original"
    axis = "share of clips won, 95 % interval; line at one half"
    chart = charts.intervals_chart(title, rows, axis=axis, reference=0.5, limits=(0.0, 1.0))
    table = Table(
        f"{title}: same prompt and seed; a tie (equal rewards) counts half; intervals by prompt",
        ["Policy", "By", "Win rate", "95 % interval", "Won", "Tied", "Lost"],
        cells,
        words=("By",),
    )
    return [elements.chart(chart), elements.table(table)]
