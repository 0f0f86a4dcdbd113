"""Answers about clips: what a judge is asked, and the table of what came back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.judges.alignment import Alignment
from vr_pipeline.judges.contract import Judge, Probabilities, check_answers
from vr_pipeline.schemas.parts import TableParts, parts_of
from vr_pipeline.video.sampled import SampledClip

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
        for each clip its answers, or why there are none: the judge cannot take it (too elongated, too large for the
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
    clip = pd.Index(video_index["video_id"]).get_indexer(pd.Index(answers["video_id"]))
    question = pd.Index(checklist.question_ids, dtype="str").get_indexer(pd.Index(answers["question_id"]))
    # Those that neither names come last.
    order = np.lexsort((np.where(question < 0, len(checklist.question_ids), question), clip.astype(np.uint64)))
    table = answers.iloc[order].reset_index(drop=True)
    table["answer"] = table["p_yes"] > 0.5
    table["gated"] = _gated(table, question[order], checklist)
    return table[["video_id", "question_id", "p_yes", "answer", "outside_mass", "gated", "frames_judged", "sampling"]]


def _gated(table: pd.DataFrame, question: npt.NDArray[np.intp], checklist: Checklist) -> npt.NDArray[np.bool_]:
    """Return which answers a gate switches off; ``question`` has the place of each in the checklist, or -1."""
    places = {name: at for at, name in enumerate(checklist.question_ids)}
    clip, clips = pd.factorize(table["video_id"])
    yes = np.ones((len(clips), len(places)), dtype=bool)
    known = question >= 0
    yes[clip[known], question[known]] = table["answer"].to_numpy(dtype=bool)[known]
    off = np.zeros_like(yes)
    for name, at in places.items():
        for gate in checklist.gates_of(name):
            off[:, at] |= ~yes[:, places[gate]]
    return known & off[clip, question]


def check_outside_mass(answers: pd.DataFrame, limit: float) -> float:
    """Return the median mass outside yes and no; stop a run whose judge does not answer the questions.

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
            remedy="Check that the text around the question (judge.json in the model's folder, or judge.server) fits "
            "the model's chat format, that the tokenizer belongs to the weights, that the questions ask for yes or "
            "no, and that the model is instruction-tuned; or raise max_median_outside_mass if this is as intended",
            field="checklist_inference.max_median_outside_mass",
        )
    return median


def summarise(answers: pd.DataFrame | TableParts, video_index: pd.DataFrame) -> dict[str, Any]:
    """Count one set of answers and give its figures, for a report."""
    judged: set[str] = set()
    gated, outside, yes = 0, [np.empty(0)], pd.DataFrame()
    for part in parts_of(answers):
        judged.update(part["video_id"].unique())
        gated += int(part["gated"].sum())
        outside.append(part["outside_mass"].to_numpy())
        yes = yes.add(part.groupby("question_id", sort=False)["answer"].agg(["sum", "count"]), fill_value=0)
    masses = np.concatenate(outside)
    not_made = video_index[video_index["status"] != "ok"]
    not_read = video_index[(video_index["status"] == "ok") & ~video_index["video_id"].isin(judged)]
    shares = yes["sum"] / yes["count"] if len(yes) else pd.Series(dtype=float)
    return {
        "clips": len(video_index),
        "clips_judged": len(judged),
        "clips_failed_before": len(not_made),
        "clips_unreadable": len(not_read),
        "unreadable_video_ids": sorted(not_read["video_id"])[:100],
        "answers": len(masses),
        "gated": gated,
        "median_outside_mass": float(np.median(masses)) if len(masses) else 0.0,
        "share_of_yes": {str(question): round(float(share), 6) for question, share in shares.items()},
    }
