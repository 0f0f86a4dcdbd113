"""Answers about many clips: what to ask of which clip, and the table of what came back."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.judges.alignment import Alignment, alignment_identity, load_alignment
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.judges.contract import NoNumbersError, Probabilities, check_answers
from vr_pipeline.video.read import Frames, VideoReadError, read_clip
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.loading import judge_identity
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.judges.contract import Judge

logger = logging.getLogger(__name__)

ANSWERS_BEFORE_A_LOOK = 2000
"""After so many answers a judge that does not say yes or no is stopped, instead of after all clips."""

SHARD_COLUMNS = ["video_id", "question_id", "p_yes", "outside_mass", "frames_judged", "sampling", "error"]


def clip_path(folder: Any, video_id: str, file: str) -> Path:
    """Where a clip is: in an :class:`~vr_pipeline.items.folder.ItemFolder` by its key, else by its file name.

    Raises:
        VideoReadError: the folder has no such clip.
    """
    try:
        return Path(folder[file]) if isinstance(folder, Mapping) else Path(folder.path(video_id))
    except KeyError:
        raise VideoReadError(
            f"clip '{video_id}' is not in the folder of clips", remedy="Index the folder again", file=file
        ) from None


def plan_answers(
    videos: Any,
    video_index: pd.DataFrame,
    checklist: Checklist,
    judge: JudgeParameters,
    parameters: ChecklistInferenceParameters,
) -> WorkPlan:
    """What a judge has to answer, in groups of clips of one prompt.

    A group is stored once all its clips are judged; after an interruption only the missing groups are judged. Its
    identity is made of the judge, the checklist, the clips' content and their prompts, so that a change of any of them
    judges again, and another prompt's clips are left alone.

    Args:
        videos: the folder of clips.
        video_index: schema ``VideoIndex``; clips of status 'failed' are left out.
        checklist: the questions.
        judge: what answers.
        parameters: alignment, group size.

    Returns:
        a plan whose items are what :func:`answer_clips` gives: a clip that does not decode has one row without a
        question and the reason. Making them raises what :func:`check_outside_mass` raises, if the first answers are
        no answers.
    """
    asked = judge_identity(judge)
    # The last word names the columns that are stored: groups of an older form are judged again.
    of_all = (asked, checklist.hash, *alignment_identity(parameters.alignment), "with sampling")
    usable = video_index[video_index["status"] == "ok"].sort_values(
        ["prompt_id", "sample_index", "video_id"], kind="stable"
    )
    groups: dict[str, list[dict[str, Any]]] = {}
    items = []
    for _, of_prompt in usable.groupby("prompt_id", sort=True):
        rows = of_prompt[["video_id", "prompt", "path", "sha256"]].to_dict("records")
        for start in range(0, len(rows), parameters.clips_per_item):
            group = rows[start : start + parameters.clips_per_item]
            key = content_hash("answers", *(row["video_id"] for row in group))
            contents = [str(row[name]) for row in group for name in ("video_id", "sha256", "prompt")]
            groups[key] = [{str(name): value for name, value in row.items()} for row in group]
            items.append(
                WorkItem(
                    key=key,
                    identity=content_hash("answers", *of_all, *contents),
                    metadata={"judge": asked, "checklist": checklist.hash, "clips": len(group)},
                )
            )
    questions = [question.text for question in checklist.questions]

    def setup() -> tuple[Judge, Alignment | None]:
        from vr_pipeline.judges import load_judge

        return load_judge(judge), load_alignment(parameters.alignment, checklist)

    first: list[pd.DataFrame] = []

    def make_batch(
        loaded: tuple[Judge, Alignment | None], batch: Sequence[WorkItem]
    ) -> list[pd.DataFrame | ItemFailure]:
        asked, alignment = loaded
        threads = parameters.reader_threads
        made = [
            answer_clips(asked, videos, groups[item.key], checklist.question_ids, questions, threads, alignment)
            for item in batch
        ]
        if sum(map(len, first)) < ANSWERS_BEFORE_A_LOOK:
            first.extend(table for table in made if isinstance(table, pd.DataFrame))
            if sum(map(len, first)) >= ANSWERS_BEFORE_A_LOOK:
                check_outside_mass(pd.concat(first), parameters.max_median_outside_mass)
        return made

    return WorkPlan(items=items, make_batch=make_batch, batch_size=1, description="groups of answers", setup=setup)


@dataclass(frozen=True, eq=False)
class Shown:
    """A clip as the judge sees it.

    Attributes:
        video_id: what it is called in tables, also in one of alignment scores.
        prompt: its text.
        frames: those that are judged.
        indices: their numbers in the clip.
        frames_per_second: rate of the frames that are judged.
    """

    video_id: str
    prompt: str
    frames: Frames
    indices: list[int]
    frames_per_second: float


Answer = tuple[Probabilities, Probabilities]
"""Probabilities of yes and outside masses, [questions] each."""


def show_clip(judge: Judge, path: Path, video_id: str, prompt: str, *, own: bool = False) -> Shown:
    """Read of a file what the judge is to see: the one sampling of pipelines, commands and served models.

    Args:
        judge: says how many frames it takes, and how often.
        path: the clip or picture.
        video_id: see :class:`Shown`.
        prompt: the text it was made for.
        own: the project has made the file itself; see :class:`~vr_pipeline.video.limits.ReadingParameters`.

    Raises:
        VideoReadError: the file cannot be read.
    """
    frames, indices, information = read_clip(path, num_frames=judge.num_frames, fps=judge.frames_per_second, own=own)
    # The rate of the frames that were taken, not the clip's own.
    taken = information.fps * len(indices) / max(information.num_frames, 1)
    return Shown(video_id, prompt, frames, list(indices), taken or 1.0)


def ask(
    judge: Judge, alignment: Alignment | None, clips: Sequence[Shown], questions: Sequence[str]
) -> list[Answer | ValueError | InputError]:
    """Ask all questions about clips: the one way to answers of pipelines, commands and served models.

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


def answer_clips(
    judge: Judge,
    videos: Any,
    clips: Sequence[Mapping[str, Any]],
    question_ids: Sequence[str],
    questions: Sequence[str],
    reader_threads: int = 1,
    alignment: Alignment | None = None,
) -> pd.DataFrame | ItemFailure:
    """Reads clips and asks all questions about them; see :data:`SHARD_COLUMNS`.

    A clip that does not decode, that the judge cannot take (too elongated, too large for the memory), or about which it
    gives no numbers, has one row with the reason; the others are judged. Where clips decode but none can be judged, the
    reason need not lie with the clips (the machine, a scorer): that is a failure, which the next run tries again.
    """

    def read(clip: Mapping[str, Any]) -> Shown | VideoReadError:
        try:
            path = clip_path(videos, clip["video_id"], clip["path"])
            own = not isinstance(videos, Mapping)
            return show_clip(judge, path, str(clip["video_id"]), str(clip["prompt"]), own=own)
        except VideoReadError as error:
            return error

    with ThreadPoolExecutor(reader_threads) as pool:
        read_or_not = list(pool.map(read, clips))
    shown = [clip for clip in read_or_not if isinstance(clip, Shown)]
    answers = ask(judge, alignment, shown, questions) if shown else []
    if shown and all(isinstance(answer, Exception) and not isinstance(answer, NoNumbersError) for answer in answers):
        return ItemFailure(str(answers[0]))
    answered = iter(answers)
    results = [(clip, next(answered) if isinstance(clip, Shown) else clip) for clip in read_or_not]
    sampling = describe_sampling(judge.num_frames, judge.frames_per_second)
    tables = [
        _rows(clip, result, question_ids, sampling)
        for clip, result in results
        if isinstance(clip, Shown) and not isinstance(result, Exception)
    ]
    failed = [
        {"video_id": str(clip["video_id"]), "question_id": "", "p_yes": np.nan, "outside_mass": np.nan}
        | {"frames_judged": 0, "sampling": sampling, "error": str(result)}
        for clip, (_, result) in zip(clips, results, strict=True)
        if isinstance(result, Exception)
    ]
    if failed:
        tables.append(pd.DataFrame(failed, columns=SHARD_COLUMNS))
    return pd.concat(tables, ignore_index=True).astype({"frames_judged": int})


def answer_file(
    judge: Judge,
    path: Path,
    prompt: str,
    checklist: Checklist,
    alignment: Alignment | None = None,
    *,
    video_id: str | None = None,
) -> tuple[pd.DataFrame, list[int]]:
    """Answers to the whole checklist about one file, as the pipeline has them, and the frames that were judged.

    Args:
        judge: who answers.
        path: a video or picture.
        prompt: the text it was made for.
        checklist: the questions.
        alignment: another source of the alignment score.
        video_id: what the file is called in tables; its name without one.

    Returns:
        schema ``ChecklistAnswers``, gates applied, and numbers of frames.

    Raises:
        VideoReadError: the file cannot be read.
        InputError: the judge cannot take it, or gives no numbers.
    """
    clip = show_clip(judge, path, path.name if video_id is None else video_id, prompt)
    (answer,) = ask(judge, alignment, [clip], [question.text for question in checklist.questions])
    if isinstance(answer, Exception):
        raise about_file(answer, path)
    sampling = describe_sampling(judge.num_frames, judge.frames_per_second)
    rows = _rows(clip, answer, checklist.question_ids, sampling)
    return collect_table(rows, pd.DataFrame({"video_id": [clip.video_id]}), checklist), clip.indices


def about_file(error: ValueError | InputError, path: Path) -> InputError:
    """Why a judge gave no answer about a file, with the file's name."""
    if isinstance(error, InputError):
        return InputError(error.problem, remedy=error.remedy, file=error.file or path, field=error.field)
    return InputError(str(error), remedy="Give a file of another size", file=path)


def _rows(clip: Shown, answer: Answer, question_ids: Sequence[str], sampling: str) -> pd.DataFrame:
    p_yes, outside = answer
    return pd.DataFrame(
        {
            "video_id": clip.video_id,
            "question_id": list(question_ids),
            "p_yes": np.asarray(p_yes, dtype=np.float64),
            "outside_mass": np.asarray(outside, dtype=np.float64),
            "frames_judged": len(clip.frames),
            "sampling": sampling,
            "error": "",
        },
        columns=SHARD_COLUMNS,
    )


def read_shards(shards: Any) -> pd.DataFrame:
    """All stored groups of answers as one table; a clip of which one is no number has one row with that reason.

    Args:
        shards: the folder of what :func:`plan_answers` makes.
    """
    parts = [shards.load(key) for key in shards.keys]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=SHARD_COLUMNS)
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


def describe_sampling(num_frames: int | None, frames_per_second: float | None) -> str:
    """Which frames of a clip were judged, in the terms of :func:`vr_pipeline.video.read.sample_indices`.

    With the number of frames judged, this says which they were: evenly spread over the clip.
    """
    rate = "every frame" if frames_per_second is None else f"{frames_per_second:g}/s"
    return rate if num_frames is None else f"{rate}, at most {num_frames}"


def collect_table(shards: pd.DataFrame, video_index: pd.DataFrame, checklist: Checklist) -> pd.DataFrame:
    """One table of answers, gates applied.

    Args:
        shards: rows with :data:`SHARD_COLUMNS`.
        video_index: gives the order of clips.
        checklist: gives the order of questions, and the gates.

    Returns:
        schema ``ChecklistAnswers`` with the columns frames_judged and sampling; rows of clips that did not decode are
        left out.
    """
    order = {video: at for at, video in enumerate(video_index["video_id"])}
    places = {question: at for at, question in enumerate(checklist.question_ids)}
    table = shards[shards["error"] == ""].drop(columns="error")
    table = (
        table.assign(_clip=table["video_id"].map(order), _question=table["question_id"].map(places))
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
    """Counts and figures of one set of answers, for a report."""
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
