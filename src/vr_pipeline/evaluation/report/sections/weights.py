"""The weights of the checklist's questions: what the reward values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.charts import Mark, Row
from vr_pipeline.evaluation.report.elements import Cells, Table, number
from vr_pipeline.evaluation.report.wording import as_number, plain

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.rewards.checklist.weights import RewardWeights


def make(titles: Mapping[str, str], document: Mapping[str, Any], checklist: Checklist) -> list[Markup]:
    """Show weights with their intervals, grouped by dimension, and how they were fitted.

    Raises:
        InputError: these are not reward weights.
    """
    from vr_pipeline.rewards.checklist.weights import RewardWeights

    fitted = RewardWeights.from_json(document)
    reasons = {str(removal["question_id"]): str(removal.get("reason", "")) for removal in fitted.removals}
    no_interval = fitted.statistics.get("no_interval", {})
    rows: list[Row] = []
    cells: list[Cells] = []
    for question in checklist.questions:
        name, record = question.question_id, document["questions"].get(question.question_id)
        if record is None:
            continue
        removed = bool(record.get("removed", False))
        value, low, high = (as_number(record.get(key)) for key in ("weight", "ci_low", "ci_high"))
        series = 3 + checklist.dimensions.index(question.dimension)
        tip = "removed" if removed else f"{name}: {plain(value, 3)} ({plain(low, 3)} to {plain(high, 3)})"
        rows.append(Row(name, [Mark(series, value, low, high, tip)], removed))
        status = f"removed: {reasons.get(name, 'no weight')}" if removed else "kept"
        if name in no_interval:
            status += f"; no interval: {no_interval[name]}"
        interval = elements.interval(low, high, 3)
        cells.append([name, question.text, question.dimension, number(value, 3), interval, status])
    chart = charts.intervals_chart(
        f"Weights: {len(fitted.kept)} of {len(fitted.question_ids)} questions kept",
        rows,
        axis="weight (log odds), 95 % interval",
        series=[(3 + i, name) for i, name in enumerate(checklist.dimensions)],
        description="The table below holds the same numbers.",
    )
    table = Table(
        "Weights of the checklist's questions",
        ["Question", "Text", "Dimension", "Weight", "95 % interval", "Status"],
        cells,
        words=("Text", "Dimension", "Status"),
    )
    return [
        elements.paragraph(
            f"{_facts(fitted)} A question whose weight came out negative is removed and the rest fitted again. "
            "Questions that say almost the same share their weight, so read groups of them rather than single ones."
        ),
        elements.chart(chart),
        elements.folded("All questions", table),
    ]


def _facts(weights: RewardWeights) -> str:
    facts = weights.statistics
    text = "Logistic regression of preferences on differences of answers, without intercept"
    if "n_pairs" in facts:
        text += f", on {int(facts['n_pairs']):,} pairs"
        if "n_ties" in facts:
            text += f" ({int(facts['n_ties']):,} of them ties, which take no part)"
    encoding = {"zero_one": "yes 1, no 0", "plus_minus": "yes 1, no −1"}[weights.encoding]
    answers = "as probabilities" if weights.answers == "probability" else "cut at one half"
    remarks = "".join(f" {warning[:1].upper()}{warning[1:]}." for warning in facts.get("warnings", ()))
    return (
        f"{text}. Answers enter {answers}, {encoding}. Each interval is for itself: of twenty, one is expected to miss."
        f"{remarks}"
    )
