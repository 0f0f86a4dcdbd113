"""The questions on which judge and oracle disagree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.evaluation.report import charts, elements
from vr_pipeline.evaluation.report.elements import Table, number, share
from vr_pipeline.evaluation.report.wording import percent

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist


def make(
    titles: Mapping[str, str],
    metrics: Mapping[str, Any],
    checklist: Checklist,
    judge_answers: pd.DataFrame,
    oracle_answers: pd.DataFrame,
    index: pd.DataFrame,
) -> list[Markup]:
    """Show the share of equal answers by question, and how much more often the judge says yes."""
    agreement = metrics.get("judge_oracle_agreement")
    if not agreement:
        return []
    bias = question_bias(judge_answers, oracle_answers, index, list(titles))
    known = {question.question_id: question for question in checklist.questions}
    rows = []
    for name, value in sorted((agreement.get("questions") or {}).items(), key=lambda item: (item[1], item[0])):
        question = known.get(name)
        excess = [float(bias.loc[name, policy]) if name in bias.index else math.nan for policy in titles]
        rows.append(
            [
                name,
                question.text if question else "",
                question.dimension if question else "",
                share(value, charts.share_bar(value)),
                *(number(100 * points, 1, sign=True) for points in excess),
            ]
        )
    table = Table(
        "Answers of judge and oracle on the evaluation's clips, least agreement first",
        [
            "Question",
            "Text",
            "Dimension",
            "Same answer",
            *(f"Judge's extra yes, {title} (points)" for title in titles.values()),
        ],
        rows,
        words=("Text", "Dimension"),
    )
    text = (
        f"They give the same answer in {percent(agreement['overall'])} of cases. The last columns show how much more "
        "often the judge answers yes than the oracle; a number that grows from the original to a trained policy marks "
        "a question on which the clips improved only for the judge."
    )
    return [elements.paragraph(text), elements.table(table)]


def question_bias(
    judge_answers: pd.DataFrame, oracle_answers: pd.DataFrame, index: pd.DataFrame, policies: Sequence[str]
) -> pd.DataFrame:
    """Measure how much more often the judge says yes than the oracle, by question (rows) and policy (columns)."""
    both = judge_answers[["video_id", "question_id", "p_yes"]].merge(
        oracle_answers[["video_id", "question_id", "p_yes"]],
        on=["video_id", "question_id"],
        suffixes=("_judge", "_oracle"),
    )
    both = both.merge(index[["video_id", "policy"]], on="video_id")
    both["excess"] = (both["p_yes_judge"] > 0.5).astype(float) - (both["p_yes_oracle"] > 0.5).astype(float)
    return both.pivot_table(index="question_id", columns="policy", values="excess", aggfunc="mean").reindex(
        columns=list(policies)
    )
