"""Charts of differences of the share of yes by sub-dimension."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from vr_pipeline.evaluation.report import charts
from vr_pipeline.evaluation.report.charts import Chart, Mark, Row


def deviations_chart(title: str, tables: Mapping[int, tuple[str, pd.DataFrame]]) -> Chart:
    """Draw the deviations, one row per sub-dimension.

    Args:
        title: its heading.
        tables: by the number of their colour, name and table of
            :func:`vr_pipeline.rewards.checklist.deviations.sub_dimension_deviations`.
    """
    rows: dict[str, list[Mark]] = {}
    for series, (name, table) in tables.items():
        for row in table.to_dict("records"):
            label = str(row["sub_dimension"])
            label = label if label == row["dimension"] else f"{row['dimension']}: {label}"
            tip = f"{name}, {label}: {100 * row['deviation']:+.1f} points"
            value, low, high = (100 * float(row[key]) for key in ("deviation", "ci_low", "ci_high"))
            rows.setdefault(label, []).append(Mark(series, value, low, high, tip))
    return charts.intervals_chart(
        title,
        [Row(label, marks) for label, marks in rows.items()],
        axis="points of the share of yes, joint 95 % intervals",
        series=[(series, name) for series, (name, _) in tables.items()] if len(tables) > 1 else (),
        bars=True,
    )
