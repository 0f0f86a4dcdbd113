"""Long tables of answers as arrays, and the table of rewards."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.linear import dimension_scores, score
from vr_pipeline.rewards.checklist.weights import AnswerKind, RewardWeights
from vr_pipeline.rewards.contract import measured_clips
from vr_pipeline.schemas.parts import TableParts, parts_of
from vr_pipeline.statistics.labels import FloatArray


def answers_matrix(
    answers: pd.DataFrame,
    video_ids: Sequence[str],
    question_ids: Sequence[str],
    *,
    kind: AnswerKind = "probability",
    always_probability: Sequence[str] = (),
) -> FloatArray:
    """Return answers as an array [videos, questions], NaN where gated.

    Args:
        answers: long table ``video_id, question_id, p_yes, answer`` and perhaps ``gated``.
        video_ids: rows of the result in order; a clip may occur several times.
        question_ids: columns of the result in order.
        kind: ``probability`` takes ``p_yes``, ``binary`` takes ``answer`` as 0 or 1.
        always_probability: questions that use ``p_yes`` with either kind (alignment scores).

    Raises:
        InputError: an answer is missing, duplicated or not a probability.
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
        count = "no answer" if times[place] == 0 else f"{times[place]} answers"
        raise InputError(
            f"video '{video}' has {count} to question '{question}'",
            remedy="Judge the clip again with this checklist",
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
            f"{probability[bad]}, not a probability",
            remedy="Judge the clip again",
            field="p_yes",
        )
    if "gated" in answers.columns:
        values = np.where(answers["gated"].to_numpy(dtype=bool)[used], np.nan, values)
    matrix = np.empty((len(wanted_videos), len(wanted_questions)))
    matrix[row, column] = values
    return matrix[wanted_videos.get_indexer(pd.Index(list(video_ids), dtype=object))]


def weighted_questions(checklist: Checklist) -> list[str]:
    """Return the questions that can have weights, in order: all except pure gates."""
    return [question.question_id for question in checklist.questions if question.weighted]


def probability_questions(checklist: Checklist) -> list[str]:
    """Return the questions whose probability enters the reward with either kind of answers."""
    return [question.question_id for question in checklist.questions if question.feature == "probability"]


def check_checklist(weights: RewardWeights, checklist: Checklist) -> None:
    """Raise :class:`InputError` if the weights were fitted with another checklist."""
    if weights.checklist_hash and weights.checklist_hash != checklist.hash:
        raise InputError(
            f"the weights were fitted with checklist {weights.checklist_hash}, but this one is {checklist.hash}",
            remedy="Use the checklist of the fit, or run 'kedro run --pipeline=weight_regression' again",
            field="checklist_hash",
        )


def reward_table(
    answers: pd.DataFrame | TableParts, video_index: pd.DataFrame, checklist: Checklist, weights: RewardWeights
) -> pd.DataFrame:
    """Return the rewards of judged clips.

    Args:
        answers: long table of the judge's answers; in parts, all answers about a clip follow each other.
        video_index: the clips; those of status 'failed' or without answers are skipped.
        checklist: the questions.
        weights: the linear reward.

    Returns:
        video_id, prompt_id, sample_index, total, ``dim_<name>`` per dimension (and policy if the index has it), sorted
        by prompt, sample and identifier.
    """
    check_checklist(weights, checklist)
    usable = video_index[video_index["status"] == "ok"] if "status" in video_index.columns else video_index
    wanted = pd.Index(usable["video_id"].unique())
    always = probability_questions(checklist)
    scored = []
    for part in _whole_clips(answers):
        there = pd.Index(part["video_id"].unique())
        clips = there[wanted.get_indexer(there) >= 0]
        matrix = answers_matrix(part, clips, weights.question_ids, kind=weights.answers, always_probability=always)
        values = dimension_scores(matrix, weights, checklist).assign(total=score(matrix, weights))
        scored.append(values.set_index(clips))
    values = pd.concat(scored) if scored else pd.DataFrame()
    if not values.index.is_unique:
        twice = values.index[values.index.duplicated()][0]
        raise InputError(
            f"there are answers about video '{twice}' at two places of the table",
            remedy="Collect the answers again",
            field="video_id",
        )
    table = measured_clips(video_index, pd.DataFrame({"video_id": values.index}))
    rows = values.iloc[values.index.get_indexer(pd.Index(table["video_id"]))].reset_index(drop=True)
    return pd.concat([table.assign(total=rows.pop("total")), rows], axis=1)


def _whole_clips(answers: pd.DataFrame | TableParts) -> Iterator[pd.DataFrame]:
    """Yield parts of which none ends within a clip."""
    held = None
    for part in parts_of(answers):
        part = part if held is None else pd.concat([held, part], ignore_index=True)
        last = part["video_id"] == part["video_id"].iloc[-1] if len(part) else np.zeros(0, dtype=bool)
        held = part[last] if isinstance(answers, TableParts) else None
        yield part[~last] if held is not None else part
    if held is not None:
        yield held
