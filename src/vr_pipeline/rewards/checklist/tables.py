"""From long tables of answers to arrays, and from arrays to the table of rewards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.linear import dimension_scores, score
from vr_pipeline.rewards.checklist.weights import AnswerKind, RewardWeights
from vr_pipeline.rewards.contract import measured_clips
from vr_pipeline.statistics.labels import FloatArray

if TYPE_CHECKING:
    from vr_pipeline.checklist.schema import Checklist


def answers_matrix(
    answers: pd.DataFrame,
    video_ids: Sequence[str],
    question_ids: Sequence[str],
    *,
    kind: AnswerKind = "probability",
    always_probability: Sequence[str] = (),
) -> FloatArray:
    """Answers of some clips to some questions as one array.

    Args:
        answers: long table ``video_id, question_id, p_yes, answer, gated`` (``gated`` may be absent).
        video_ids: rows of the result, in this order; a clip may occur several times.
        question_ids: columns of the result, in this order.
        kind: ``probability`` takes ``p_yes``, ``binary`` takes ``answer`` as 0 or 1.
        always_probability: questions that enter as ``p_yes`` in either case (alignment scores).

    Returns:
        array [videos, questions]; NaN where a gate switched the question off.

    Raises:
        InputError: an answer is missing, is not a number or is there twice.
    """
    if kind not in ("probability", "binary"):
        raise InputError(f"unknown kind of answers '{kind}'", remedy="Use probability or binary", field="answers")
    wanted_videos = pd.Index(pd.unique(pd.Series(list(video_ids), dtype=object)))
    wanted_questions = pd.Index(list(question_ids), dtype=object)
    row = wanted_videos.get_indexer(pd.Index(answers["video_id"].astype(object)))
    column = wanted_questions.get_indexer(pd.Index(answers["question_id"].astype(object)))
    used = np.flatnonzero((row >= 0) & (column >= 0))
    row, column = row[used], column[used]
    flat = row.astype(np.int64) * len(wanted_questions) + column
    times = np.bincount(flat, minlength=len(wanted_videos) * len(wanted_questions))
    if (times != 1).any():
        place = int((times != 1).argmax())
        video, question = wanted_videos[place // len(wanted_questions)], wanted_questions[place % len(wanted_questions)]
        count = "is no answer" if times[place] == 0 else f"are {times[place]} answers"
        raise InputError(
            f"there {count} of video '{video}' to question '{question}'",
            remedy="Judge the clip again with the checklist in use",
            field="question_id",
        )
    probability = answers["p_yes"].to_numpy(dtype=np.float64)[used]
    values = probability
    if kind == "binary":
        keep = np.isin(column, wanted_questions.get_indexer(pd.Index(list(always_probability), dtype=object)))
        values = np.where(keep, probability, answers["answer"].to_numpy(dtype=bool)[used].astype(np.float64))
    right = (probability >= 0) & (probability <= 1)
    if not right.all():
        bad = int(np.argmin(right))
        raise InputError(
            f"the answer of video '{wanted_videos[row[bad]]}' to question '{wanted_questions[column[bad]]}' is "
            f"{probability[bad]}, which is no probability",
            remedy="Judge the clip again",
            field="p_yes",
        )
    if "gated" in answers.columns:
        values = np.where(answers["gated"].to_numpy(dtype=bool)[used], np.nan, values)
    matrix = np.empty((len(wanted_videos), len(wanted_questions)))
    matrix[row, column] = values
    return matrix[wanted_videos.get_indexer(pd.Index(list(video_ids), dtype=object))]


def weighted_questions(checklist: Checklist) -> list[str]:
    """Questions that may carry weight, in order: all but pure gates."""
    return [question.question_id for question in checklist.questions if question.weighted]


def probability_questions(checklist: Checklist) -> list[str]:
    """Questions whose probability enters the reward whatever the kind of answers."""
    return [question.question_id for question in checklist.questions if question.feature == "probability"]


def check_checklist(weights: RewardWeights, checklist: Checklist) -> None:
    """Reject weights that were fitted with another checklist.

    Raises:
        InputError: the content hashes differ.
    """
    if weights.checklist_hash and weights.checklist_hash != checklist.hash:
        raise InputError(
            f"the weights were fitted with another checklist ({weights.checklist_hash}) than this ({checklist.hash})",
            remedy="Use the checklist they were fitted with, or run 'kedro run --pipeline=weight_regression' again",
            field="checklist_hash",
        )


def reward_table(
    answers: pd.DataFrame, video_index: pd.DataFrame, checklist: Checklist, weights: RewardWeights
) -> pd.DataFrame:
    """Rewards of the clips of an index that were judged.

    Args:
        answers: long table of the judge's answers.
        video_index: the clips; those of status 'failed' are left out, and those without any answer.
        checklist: the questions.
        weights: the linear reward; its ``answers`` says what is weighed.

    Returns:
        video_id, prompt_id, sample_index, total, ``dim_<name>`` a dimension (and policy where the index has it), sorted
        by prompt, sample and identifier.
    """
    check_checklist(weights, checklist)
    table = measured_clips(video_index, answers)
    matrix = answers_matrix(
        answers,
        list(table["video_id"]),
        weights.question_ids,
        kind=weights.answers,
        always_probability=probability_questions(checklist),
    )
    table["total"] = score(matrix, weights)
    return pd.concat([table, dimension_scores(matrix, weights, checklist)], axis=1)
