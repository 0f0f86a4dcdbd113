"""Pairs of responses by sifting: the best preferred one and the worst of the others, at most one pair per question."""

from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.pairs.sifting import sift
from vr_pipeline.understanding.config import JudgingParameters
from vr_pipeline.understanding.files import PAIR_COLUMNS


def select_response_pairs(
    index: pd.DataFrame,
    candidates: pd.DataFrame,
    comparisons: pd.DataFrame,
    points: pd.DataFrame,
    parameters: JudgingParameters,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Choose the training pairs by :func:`vr_pipeline.pairs.sifting.sift`.

    Args:
        index: of the questions.
        candidates: question_id, candidate_id, response and count.
        comparisons: group (the question), a, b and results of the comparison.
        points: group, item and total.
        parameters: smallest margin.

    Returns:
        schema ``ResponsePairs``, sorted by question; and figures: numbers of candidates and results of questions,
        position bias and outside mass.

    Raises:
        InputError: there are no pairs.
    """
    found, counts = sift(comparisons, points, min_margin=parameters.min_margin)
    figures = _figures(candidates, comparisons) | {"sifting": counts.to_json()}
    if not len(found):
        raise InputError(
            f"none of {candidates['question_id'].nunique()} questions gives a pair of responses",
            remedy="Sample more candidates at a higher temperature, or lower min_margin",
            field="vlm_dpo.candidates",
        )
    text = candidates.set_index("candidate_id")["response"]
    total = points.set_index("item")["total"]
    of_question = index.set_index("question_id").loc[found["group"]].reset_index()
    table = pd.DataFrame(
        {
            **{name: of_question[name] for name in ("question_id", "group", "prompt", "files")},
            **{side: found[side].map(text).to_numpy() for side in ("chosen", "rejected")},
            **{f"{side}_score": found[side].map(total).to_numpy(dtype=float) for side in ("chosen", "rejected")},
        }
    )
    table["pair_id"] = [
        content_hash("response pair", *row)
        for row in table[["question_id", "chosen", "rejected"]].itertuples(index=False)
    ]
    return table[[*PAIR_COLUMNS, "rejected_score"]], figures


def _figures(candidates: pd.DataFrame, comparisons: pd.DataFrame) -> dict[str, Any]:
    drawn = int(candidates["count"].sum())
    by_question = candidates.groupby("question_id").size()
    figures: dict[str, Any] = {
        "questions": len(by_question),
        "questions_with_one_response": int((by_question == 1).sum()),
        "responses": drawn,
        "different_responses": len(candidates),
        "cut_responses": int((~candidates["finished"].astype(bool)).sum()),
        "comparisons": len(comparisons),
    }
    if len(comparisons):
        bias = comparisons["position_bias"]
        figures |= {
            "mean_position_bias": float(bias.mean()),
            "mean_absolute_position_bias": float(bias.abs().mean()),
            "ties": float((comparisons["better"] == "tie").mean()),
            "mean_outside_mass": float(comparisons["outside_mass"].mean()),
        }
    return figures
