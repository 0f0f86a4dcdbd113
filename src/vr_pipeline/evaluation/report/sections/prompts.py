"""Result of the prompt filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.report import elements
from vr_pipeline.evaluation.report.elements import Cells, Table, count, counted_rows

_STEPS = {
    "read": "read",
    "clean": "cleaning rules",
    "rouge": "same words (Rouge-L)",
    "semantic": "same meaning (embedding)",
    "language_model": "language model",
    "diversity": "diversity",
    "split": "leak between splits",
}


def make(titles: Mapping[str, str], report: Mapping[str, Any]) -> list[Markup]:
    """Show the numbers of prompts before and after every step, with the rules that dropped them, and the splits.

    Raises:
        InputError: the report has steps without counts.
    """
    rows: list[Cells] = []
    for step in report.get("steps") or []:
        for key in ("step", "in", "out"):
            if key not in step:
                raise InputError(
                    f"a step of the prompt filter's report has no '{key}'",
                    remedy="Run prompt_filtering again",
                    field=f"prompt_filter_report.steps.{key}",
                )
        rules = ", ".join(f"{rule} {number:,}" for rule, number in sorted((step.get("rules") or {}).items()))
        counts = (step["in"], step["out"], step.get("dropped", step["in"] - step["out"]))
        rows.append([_STEPS.get(step["step"], str(step["step"])), *map(count, counts), rules or "–"])
    tables = [
        Table(
            "Prompts before and after every step of the filter",
            ["Step", "In", "Out", "Dropped", "Rules"],
            rows,
            words=("Rules",),
        ),
        Table("Prompts that passed, by split", ["Split", "Prompts"], counted_rows(report.get("splits") or {})),
    ]
    made = [elements.table(table) for table in tables if table.rows]
    if report.get("read") is not None and report.get("kept") is not None:
        made.insert(0, elements.paragraph(f"{report['kept']:,} of {report['read']:,} prompts were kept."))
    return made or [elements.paragraph("There is no report of the prompt filter.")]
