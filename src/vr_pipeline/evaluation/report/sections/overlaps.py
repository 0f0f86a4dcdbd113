"""Prompts used for both training and testing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import elements
from vr_pipeline.evaluation.report.elements import Cells, Finding, Table, count, number

_MOST_ROWS = 30
_TESTED = {
    "validation": "Prompts of validation",
    "test": "Prompts on which policies are compared",
    "held_out_preferences": "Prompts of held-out preferences",
}
_TRAINED = {"weights": "the preferences that the weights were fitted on", "policies": "the prompts of training"}


def make(titles: Mapping[str, str], overlaps: pd.DataFrame, preference_report: Mapping[str, Any]) -> list[Markup]:
    """Show test prompts that are also trained on, with the nearest, and pairs excluded from the fit."""
    removed = preference_report["splits"].get("overlap", {}).get("pairs", 0)
    made = []
    if removed:
        text = f"{removed:,} pairs were excluded from the fit of the weights: their prompts test the policies."
        made.append(elements.findings([Finding(text)]))
    rows: list[Cells] = []
    for (tested, trained), own in overlaps.groupby(["tested", "trained"], sort=True):
        exact = int((own["kind"] == "exact").sum())
        rows.append([_TESTED[str(tested)], _TRAINED[str(trained)], count(exact), count(len(own) - exact)])
    if not rows:
        text = "No test prompt is a training prompt or a near-duplicate of one."
        return [*made, elements.findings([Finding(text, "good")])]
    text = (
        "On these prompts a reward or policy can seem better than on others. Training prompts of a judge are unknown "
        "here."
    )
    table = Table(
        "Prompts tested on that are also trained on",
        ["Tested", "Also in", "The same", "Nearly the same"],
        rows,
        words=["Also in"],
    )
    examples: list[Cells] = [
        [row["prompt"], row["nearest_prompt"], number(row["similarity"], 2)]
        for row in overlaps.head(_MOST_ROWS).to_dict("records")
    ]
    nearest = Table(
        f"Overlapping prompts ({len(examples)} of {len(overlaps):,})",
        ["Prompt", "Nearest that was trained on", "Rouge-L"],
        examples,
        words=["Nearest that was trained on"],
    )
    return [
        *made,
        elements.findings([Finding(text, "warning")]),
        elements.table(table),
        elements.folded("Overlapping prompts", nearest),
    ]
