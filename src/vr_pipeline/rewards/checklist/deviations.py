"""Differences of answers between two sets of clips, by sub-dimension of a checklist."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.tables import answers_matrix
from vr_pipeline.statistics.clustered import paired_gain, simultaneous


def sub_dimension_deviations(
    answers: npt.ArrayLike,
    other_answers: npt.ArrayLike,
    question_ids: Sequence[str],
    checklist: Checklist,
    prompts: Sequence[str] | npt.ArrayLike,
    other_prompts: Sequence[str] | npt.ArrayLike | None = None,
    *,
    comparisons: int = 1,
) -> pd.DataFrame:
    """Return by how much one set of clips exceeds another in each sub-dimension (VisionReward, Figure 4).

    A clip's score in a sub-dimension is its mean answer (share of yes); gated questions count 0. The deviation is the
    mean over prompts of the difference of mean scores, such as between preferred and rejected clips or two policies.

    Args:
        answers, other_answers: arrays [clips, questions] in 0..1, NaN where gated.
        question_ids: the columns.
        checklist: gives the sub-dimensions.
        prompts, other_prompts: prompt of each clip; the same for both without ``other_prompts``.
        comparisons: number of tables shown together, over which the 95 % intervals are :func:`simultaneous`.

    Returns:
        dimension, sub_dimension, score, other_score, deviation, ci_low, ci_high (by prompt), in checklist order,
        without sub-dimensions that have no column.
    """
    first, second = (np.nan_to_num(np.asarray(array, dtype=np.float64), nan=0.0) for array in (answers, other_answers))
    place = {question: i for i, question in enumerate(question_ids)}
    second_prompts = prompts if other_prompts is None else other_prompts
    rows = []
    columns_of = [
        [place[question.question_id] for question in sub.questions if question.question_id in place]
        for sub in checklist.sub_dimensions
    ]
    level = simultaneous(comparisons * sum(bool(columns) for columns in columns_of))
    for sub, columns in zip(checklist.sub_dimensions, columns_of, strict=True):
        if not columns:
            continue
        scores, other_scores = first[:, columns].mean(axis=1), second[:, columns].mean(axis=1)
        gain = paired_gain(scores, prompts, other_scores, second_prompts, level=level)
        rows.append(
            {
                "dimension": sub.dimension,
                "sub_dimension": sub.name,
                "score": float(scores.mean()),
                "other_score": float(other_scores.mean()),
                "deviation": gain.mean,
                "ci_low": gain.ci_low,
                "ci_high": gain.ci_high,
            }
        )
    return pd.DataFrame(
        rows, columns=["dimension", "sub_dimension", "score", "other_score", "deviation", "ci_low", "ci_high"]
    )


def policy_deviations(
    answers: pd.DataFrame, video_index: pd.DataFrame, checklist: Checklist, *, baseline: str = "original"
) -> dict[str, pd.DataFrame]:
    """Return the deviations of every policy from the baseline on the same prompts, with answers cut at one half.

    Args:
        answers: long table of the judge's answers.
        video_index: the clips with their ``policy``; status 'failed' is skipped.
        checklist: the sub-dimensions.
        baseline: the policy to compare with.

    Returns:
        policy -> table of :func:`sub_dimension_deviations`.

    Raises:
        InputError: the baseline has no clips.
    """
    usable = video_index[video_index["status"] == "ok"]
    parts = {str(policy): part for policy, part in usable.groupby("policy", sort=True)}
    if baseline not in parts:
        raise InputError(f"there are no clips of policy '{baseline}'", remedy="Evaluate it too", field="policy")
    matrices = {
        policy: answers_matrix(answers, list(part["video_id"]), checklist.question_ids, kind="binary")
        for policy, part in parts.items()
    }
    return {
        policy: sub_dimension_deviations(
            matrices[policy],
            matrices[baseline],
            checklist.question_ids,
            checklist,
            list(part["prompt_id"]),
            list(parts[baseline]["prompt_id"]),
            comparisons=len(parts) - 1,
        )
        for policy, part in parts.items()
        if policy != baseline
    }
