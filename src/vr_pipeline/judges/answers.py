"""Answers about clips: what a judge is asked, and the table of what came back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.judges.alignment import Alignment
from vr_pipeline.judges.contract import Probabilities, check_answers
from vr_pipeline.video.sampled import SampledClip

if TYPE_CHECKING:
    from vr_pipeline.judges.contract import Judge

Answer = tuple[Probabilities, Probabilities]
"""Probabilities of yes and outside masses, [questions] each."""


def ask(
    judge: Judge, alignment: Alignment | None, clips: Sequence[SampledClip], questions: Sequence[str]
) -> list[Answer | ValueError | InputError]:
    """Ask all questions about clips.

    Args:
        judge: who answers.
        alignment: another source of the alignment score, if there is one.
        clips: what is shown.
        questions: their texts, with ``[[prompt]]`` where the clip's prompt stands.

    Returns:
        a clip each, its answers, or why there are none: the judge cannot take it (too elongated, too large for the
        memory), or gave no numbers.
    """
    frames, prompts = [clip.frames for clip in clips], [clip.prompt for clip in clips]
    try:
        rates = [clip.frames_per_second for clip in clips]
        p_yes, outside = judge.answer(frames, questions, prompts, frames_per_second=rates)
        check_answers(p_yes, outside, questions)
        if alignment is not None:
            alignment.replace(p_yes, outside, frames, prompts, [clip.video_id for clip in clips], rates)
    except (ValueError, InputError) as error:
        if len(clips) > 1:
            # One clip is to blame: alone, each shows whether it is the one.
            return [answer for clip in clips for answer in ask(judge, alignment, [clip], questions)]
        return [error]
    return list(zip(p_yes, outside, strict=True))


def valid_answers(table: pd.DataFrame) -> pd.DataFrame:
    """Give a clip of which a stored answer is no probability one row with that reason in ``error``."""
    answers = table["error"] == ""
    right = table["p_yes"].between(0, 1) & table["outside_mass"].between(0, 1)
    wrong = table[answers & ~right].drop_duplicates("video_id")
    if wrong.empty:
        return table
    reasons = [
        f"the stored answer to question '{question}' is no probability ({p_yes}, {outside} outside yes and no): delete "
        "the stored answers of this clip and run again"
        for question, p_yes, outside in zip(wrong["question_id"], wrong["p_yes"], wrong["outside_mass"], strict=True)
    ]
    rows = wrong.assign(question_id="", p_yes=np.nan, outside_mass=np.nan, frames_judged=0, error=reasons)
    return pd.concat([table[~table["video_id"].isin(wrong["video_id"])], rows], ignore_index=True)


def answer_table(answers: pd.DataFrame, video_index: pd.DataFrame, checklist: Checklist) -> pd.DataFrame:
    """Arrange answers in one table, gates applied.

    Args:
        answers: video_id, question_id, p_yes, outside_mass, frames_judged, sampling.
        video_index: gives the order of clips.
        checklist: gives the order of questions, and the gates.

    Returns:
        schema ``ChecklistAnswers`` with the columns frames_judged and sampling.
    """
    order = {video: at for at, video in enumerate(video_index["video_id"])}
    places = {question: at for at, question in enumerate(checklist.question_ids)}
    table = (
        answers.assign(_clip=answers["video_id"].map(order), _question=answers["question_id"].map(places))
        .sort_values(["_clip", "_question"], ignore_index=True, kind="stable")
        .drop(columns=["_clip", "_question"])
    )
    table["answer"] = table["p_yes"] > 0.5
    table["gated"] = _gated(table, checklist)
    return table[["video_id", "question_id", "p_yes", "answer", "outside_mass", "gated", "frames_judged", "sampling"]]


def _gated(table: pd.DataFrame, checklist: Checklist) -> pd.Series:
    if not any(question.gate for question in checklist.questions) or table.empty:
        return pd.Series(False, index=table.index, dtype=bool)
    yes = table.pivot(index="video_id", columns="question_id", values="answer").astype(bool)
    off = pd.DataFrame(False, index=yes.index, columns=yes.columns)
    for question in checklist.question_ids:
        for gate in checklist.gates_of(question):
            off[question] |= ~yes[gate]
    flat = off.stack()
    wanted = pd.MultiIndex.from_frame(table[["video_id", "question_id"]])
    return pd.Series(flat.reindex(wanted).to_numpy(dtype=bool), index=table.index)


def check_outside_mass(answers: pd.DataFrame, limit: float) -> float:
    """Median of the mass outside yes and no; stops a run whose judge does not answer the questions.

    Raises:
        InputError: the median is above ``limit``.
    """
    median = float(answers["outside_mass"].median()) if len(answers) else 0.0
    if median > limit:
        worst = (
            answers.groupby("question_id")["outside_mass"].median().sort_values(ascending=False, kind="stable").head(3)
        )
        named = ", ".join(f"{question} ({value:.2f})" for question, value in worst.items())
        raise InputError(
            f"the judge does not answer with yes or no: the median probability on other tokens is {median:.3f}, "
            f"the limit is {limit}; worst questions: {named}",
            remedy=(
                "Check that the text around the question in the model folder's judge.json fits the model's chat "
                "format, that the tokenizer belongs to the weights, that the questions ask for yes or no, and that the "
                "model is an instruction-tuned one; or raise max_median_outside_mass if this is as intended"
            ),
            field="checklist_inference.max_median_outside_mass",
        )
    return median


def summarise(answers: pd.DataFrame, video_index: pd.DataFrame) -> dict[str, Any]:
    """Count one set of answers and give its figures, for a report."""
    judged = set(answers["video_id"])
    not_made = video_index[video_index["status"] != "ok"]
    not_read = video_index[(video_index["status"] == "ok") & ~video_index["video_id"].isin(judged)]
    return {
        "clips": len(video_index),
        "clips_judged": len(judged),
        "clips_failed_before": len(not_made),
        "clips_unreadable": len(not_read),
        "unreadable_video_ids": sorted(not_read["video_id"])[:100],
        "answers": len(answers),
        "gated": int(answers["gated"].sum()),
        "median_outside_mass": float(answers["outside_mass"].median()) if len(answers) else 0.0,
        "share_of_yes": {
            str(question): round(float(share), 6)
            for question, share in answers.groupby("question_id", sort=False)["answer"].mean().items()
        },
    }
