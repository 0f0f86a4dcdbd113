"""The weights of the checklist's questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import charts, elements, planes
from vr_pipeline.evaluation.report.charts import Mark, Row
from vr_pipeline.evaluation.report.elements import Cells, Table, number
from vr_pipeline.evaluation.report.sections.deviations import deviations_chart
from vr_pipeline.evaluation.report.wording import as_number, plain

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.micro_world.oracle import Oracle
    from vr_pipeline.rewards.checklist.weights import RewardWeights


def make(
    titles: Mapping[str, str],
    document: Mapping[str, Any],
    checklist: Checklist,
    oracle: Oracle | None,
    answers: pd.DataFrame | None,
    deviations: pd.DataFrame | None,
) -> list[Markup]:
    """Show weights with intervals by dimension, next to hidden ones if known, the fit, and correlations of answers.

    Raises:
        InputError: these are not reward weights.
    """
    from vr_pipeline.rewards.checklist.weights import RewardWeights

    fitted = RewardWeights.from_json(document)
    reasons = {str(removal["question_id"]): str(removal.get("reason", "")) for removal in fitted.removals}
    no_interval = fitted.statistics.get("no_interval", {})
    hidden = _hidden(fitted, oracle)
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
        marks = [Mark(series, value, low, high, tip)]
        if name in hidden:
            marks.append(Mark(0, hidden[name], tip=f"{name}, hidden: {plain(hidden[name], 3)}"))
        rows.append(Row(name, marks, removed))
        status = f"removed: {reasons.get(name, 'no weight')}" if removed else "kept"
        if name in no_interval:
            status += f"; no interval: {no_interval[name]}"
        interval = elements.interval(low, high, 3)
        cells.append([name, question.text, question.dimension, number(value, 3), interval, status])
    chart = charts.intervals_chart(
        f"Weights: {len(fitted.kept)} of {len(fitted.question_ids)} questions kept",
        rows,
        axis="weight (log odds), 95 % interval",
        series=[
            *((3 + i, name) for i, name in enumerate(checklist.dimensions)),
            *([(0, "hidden weight, scaled")] if hidden else []),
        ],
        description="The table below has the same numbers.",
    )
    table = Table(
        "Weights of the checklist's questions",
        ["Question", "Text", "Dimension", "Weight", "95 % interval", "Status"],
        cells,
        words=("Text", "Dimension", "Status"),
    )
    return [
        elements.paragraph(_facts(fitted)),
        elements.chart(chart),
        *([elements.paragraph(_recovered(fitted, hidden))] if hidden else []),
        elements.folded("All questions", table),
        *_pictures(checklist, answers, deviations),
    ]


def _hidden(fitted: RewardWeights, oracle: Oracle | None) -> dict[str, float]:
    """Return the hidden weights of simulated people, scaled to the sum of the learned ones; empty if unknown."""
    if oracle is None or not set(fitted.question_ids) <= set(oracle.weights):
        return {}
    utilities = {name: float(oracle.weights[name]) for name in fitted.question_ids}
    scale = float(fitted.weights.sum()) / sum(utilities.values())
    return {name: scale * value for name, value in utilities.items()}


def _recovered(fitted: RewardWeights, hidden: Mapping[str, float]) -> str:
    from scipy.stats import spearmanr

    order = float(spearmanr(fitted.weights, [hidden[name] for name in fitted.question_ids]).statistic)
    return (
        "The preferences were simulated from hidden weights, shown in grey and scaled to the sum of the learned ones. "
        f"Rank correlation of learned and hidden weights: {plain(order)}."
    )


def _pictures(checklist: Checklist, answers: pd.DataFrame | None, deviations: pd.DataFrame | None) -> list[Markup]:
    from vr_pipeline.rewards.checklist.curves import answer_correlation
    from vr_pipeline.rewards.checklist.tables import answers_matrix

    made = []
    if deviations is not None:
        title = "Share of yes by sub-dimension: clips that people preferred, minus the others"
        made.append(elements.chart(deviations_chart(title, {2: ("preferred minus other", deviations)})))
    if answers is not None:
        clips = sorted(set(answers["video_id"]))
        matrix = answer_correlation(answers_matrix(answers, clips, checklist.question_ids))
        chart = planes.matrix_chart(
            "Correlation of the answers to the questions",
            matrix,
            checklist.question_ids,
            description=_strongest(matrix, checklist.question_ids),
            note=f"Over {len(clips):,} clips; blue is positive, orange negative, stronger is larger. "
            f"{_strongest(matrix, checklist.question_ids)}",
        )
        made.append(elements.chart(chart))
    return made


def _strongest(matrix: npt.NDArray[np.float64], names: Sequence[str]) -> str:
    below = np.abs(np.tril(np.nan_to_num(matrix), -1))
    i, j = divmod(int(below.argmax()), len(names))
    return f"Most alike: {names[i]} and {names[j]} ({plain(float(matrix[i, j]))})." if below[i, j] > 0 else ""


def _facts(weights: RewardWeights) -> str:
    facts = weights.statistics
    encoding = {"zero_one": "yes 1, no 0", "plus_minus": "yes 1, no −1"}[weights.encoding]
    answers = "as probabilities" if weights.answers == "probability" else "cut at one half"
    if facts.get("given"):
        return f"The weights are given, not fitted. Answers enter {answers}, {encoding}."
    text = "Logistic regression of preferences on differences of answers, without intercept"
    if "n_pairs" in facts:
        text += f", on {int(facts['n_pairs']):,} pairs"
        if "n_ties" in facts:
            text += f" ({int(facts['n_ties']):,} of them ties, which are not used)"
    remarks = "".join(f" {warning[:1].upper()}{warning[1:]}." for warning in facts.get("warnings", ()))
    return (
        f"{text}. Answers enter {answers}, {encoding}. Intervals are single: one in twenty is expected to miss."
        f"{remarks} A question with a negative weight is removed and the rest is fitted again. Questions with almost "
        "the same meaning share their weight, so read them as groups."
    )
