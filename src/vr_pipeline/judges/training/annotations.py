"""Annotated clips: from tables to training examples, and from people's grades to answers."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist, plain_name
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import first_spellings, normalise_prompt
from vr_pipeline.judges.training.examples import JudgeExample, StoredFrames
from vr_pipeline.judges.training.graded import labels_of_journal
from vr_pipeline.preferences.journal import is_journal
from vr_pipeline.storage.tables import left_out, read_entries
from vr_pipeline.storage.values import as_text, is_missing
from vr_pipeline.video.read import VideoReadError, read_clip, sample_indices
from vr_pipeline.video.sampled import clip_path

logger = logging.getLogger(__name__)

_CLIPS_AT_A_TIME = 64
"""Clips read before the memory they take is counted."""


def collect_examples(
    annotations: pd.DataFrame,
    video_index: pd.DataFrame,
    videos: Any,
    *,
    num_frames: int | None = None,
    frames_per_second: float | None = None,
    reader_threads: int = 2,
    memory_mb: float = math.inf,
) -> list[JudgeExample]:
    """Collect annotated clips with their answers.

    Args:
        annotations: schema ``JudgeAnnotations``: video_id, question_id, label; optional prompt (else that of the
            index), caption, split and source. Rows of one clip and prompt make one example.
        video_index: schema ``VideoIndex``; clips of status 'failed' are left out.
        videos: the folder of clips.
        num_frames, frames_per_second: which frames are read.
        reader_threads: threads that decode.
        memory_mb: clips are kept in memory up to about so many megabytes; the others are read whenever they are needed.

    Returns:
        examples in the order of the index. Clips that do not decode are left out with a warning (those that are read
        later were tried by the index: their first and last frame).

    Raises:
        InputError: an annotation names a clip that the index lacks, or a clip has two labels for one question.
    """
    by_id = {str(row["video_id"]): row for row in video_index.to_dict("records")}
    strangers = set(annotations["video_id"]) - set(by_id)
    if strangers:
        raise InputError(
            f"{len(strangers)} annotated clips are not in the video index, for example '{min(strangers)}'",
            remedy="Index these clips or remove their annotations",
            field="video_id",
        )
    table = annotations.copy()
    of_index = table["video_id"].map(lambda video: by_id[video]["prompt"])
    table["prompt"] = table["prompt"].replace("", None).fillna(of_index) if "prompt" in table.columns else of_index
    table["prompt"] = first_spellings(table["prompt"], normalise_prompt)
    for name in ("caption", "split", "source"):
        table[name] = table[name].fillna("").astype(str) if name in table.columns else ""
    twice = table.duplicated(["video_id", "prompt", "question_id"])
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"clip '{row['video_id']}' has two labels for question '{row['question_id']}'",
            remedy="Keep one of them, for example the annotators' majority",
            row=int(twice.to_numpy().argmax()) + 2,
            field="question_id",
        )
    order = {video: at for at, video in enumerate(by_id)}
    table["_order"] = table["video_id"].map(order)
    grouped = [
        (str(video), str(prompt), rows)
        for (_, video, prompt), rows in table.groupby(["_order", "video_id", "prompt"], sort=True)
        if by_id[str(video)].get("status", "ok") == "ok"
    ]

    def read(video: str) -> Any:
        row = by_id[video]
        try:
            path = clip_path(videos, video, str(row["path"]))
            if used > memory_mb * 1e6:
                indices = sample_indices(
                    int(row["num_frames"]), row["fps"], num_frames=num_frames, frames_per_second=frames_per_second
                )
                stored = StoredFrames(path, num_frames, frames_per_second)
                return stored, row["fps"] * len(indices) / max(int(row["num_frames"]), 1) or None
            frames, indices, information = read_clip(path, num_frames=num_frames, fps=frames_per_second)
        except VideoReadError as error:
            return error
        return frames, information.fps * len(indices) / max(information.num_frames, 1) or None

    wanted = list(dict.fromkeys(video for video, _, _ in grouped))
    clips: dict[str, Any] = {}
    used = 0
    with ThreadPoolExecutor(reader_threads) as pool:
        for start in range(0, len(wanted), _CLIPS_AT_A_TIME):
            part = wanted[start : start + _CLIPS_AT_A_TIME]
            clips |= zip(part, pool.map(read, part), strict=True)
            used += sum(getattr(clips[video][0], "nbytes", 0) for video in part if isinstance(clips[video], tuple))
    failed = {video: clip for video, clip in clips.items() if isinstance(clip, VideoReadError)}
    if failed:
        first = next(iter(failed.values()))
        logger.warning("%d of %d annotated clips could not be read, first: %s", len(failed), len(clips), first)
    return [
        JudgeExample(
            video_id=video,
            frames=clips[video][0],
            prompt=prompt,
            labels=dict(zip(rows["question_id"], rows["label"].astype(bool), strict=True)),
            caption=str(rows["caption"].iloc[0]),
            frames_per_second=clips[video][1],
            split=str(rows["split"].iloc[0]),
            source=str(rows["source"].iloc[0]),
            content=str(by_id[video].get("sha256", "")),
        )
        for video, prompt, rows in grouped
        if video not in failed
    ]


_CLIP_COLUMNS = ("video_id", "video_path", "image", "internal_id")
_FILE_COLUMNS = ("file", "video_path", "image")
_GRADES_REMEDY = 'Write the grades as {"sub-dimension": grade, ...}'
_KEPT_COLUMNS = ("prompt", "caption", "split", "source")


def annotations_from_grades(graded: pd.DataFrame, checklist: Checklist, *, first_row: int = 2) -> pd.DataFrame:
    """Make labels from people's grades, in the form of VisionRewardDB or one column per sub-dimension.

    Args:
        graded: video_id (or video_path, image, internal_id in its place), and either a column ``annotation`` with a
            mapping sub-dimension -> grade (or its JSON), or one column per sub-dimension of the checklist. The file's
            name (``file``, else video_path or image), prompt, caption, split and source are kept where they are given.
        checklist: has a grade map for the sub-dimensions.
        first_row: number of the first row in messages.

    Returns:
        schema ``JudgeAnnotations``: video_id, question_id, label and what is kept, in the order given.

    Raises:
        InputError: no column or cell names a clip, grades are in no form that can be read, a grade is not in the
            checklist's map, or none is of a sub-dimension that the checklist has a map for.
    """
    table, problems = _labels_of_grades(graded.set_axis(range(first_row, first_row + len(graded))), checklist)
    for problem in problems:
        raise problem
    return table


def _labels_of_grades(graded: pd.DataFrame, checklist: Checklist) -> tuple[pd.DataFrame, list[InputError]]:
    """:func:`annotations_from_grades` of a table whose index holds the row numbers, and what is wrong with rows."""
    names = [name for name in _CLIP_COLUMNS if name in graded.columns]
    if not names:
        raise InputError(
            "no column names the clips", remedy="Give the column video_id (or video_path)", field="video_id"
        )
    files = [name for name in _FILE_COLUMNS if name in graded.columns]
    kept = [name for name in _KEPT_COLUMNS if name in graded.columns]
    mapped = {plain_name(sub.name): sub.name for sub in checklist.sub_dimensions if sub.grades}
    rows: list[dict[str, object]] = []
    problems: list[InputError] = []
    strange: set[str] = set()
    for row, record in zip(graded.index, graded.to_dict("records"), strict=True):
        try:
            if not _cell(record, names[0]):
                raise InputError("the cell is empty", remedy="Name the clip", field=names[0])
            given = {str(sub): grade for sub, grade in grades_of_row(record, mapped).items() if not _empty(grade)}
            strange |= {sub for sub in given if plain_name(sub) not in mapped}
            answers = checklist.answers_from_grades(given)
            clip = {"video_id": _cell(record, names[0])} | {name: _cell(record, name) for name in kept}
            if files:
                clip["file"] = _cell(record, files[0])
        except InputError as error:
            problems.append(error.at(row=int(row)))
        else:
            rows.extend(clip | {"question_id": question, "label": answer} for question, answer in answers.items())
    known = ", ".join(mapped.values()) or "none"
    if strange:
        logger.warning("Grades of %s are left out: the checklist maps grades of %s.", ", ".join(sorted(strange)), known)
    if len(graded) and not rows and not problems:
        raise InputError(
            f"there is no grade of a sub-dimension that checklist '{checklist.name}' has a map for",
            remedy=f"Name the sub-dimensions as the checklist does ({known}), or use the checklist they belong to",
            field="annotation",
        )
    columns = ["video_id", "question_id", "label", *kept, *(["file"] if files else [])]
    return pd.DataFrame(rows, columns=columns), problems


def grades_of_row(record: Mapping[Any, Any], mapped: Mapping[str, str]) -> Mapping[Any, Any]:
    """Return sub-dimension -> grade of one row: those of the column 'annotation', or of the columns that are so named.

    Args:
        mapped: sub-dimensions by their plain names.

    Raises:
        InputError: the annotation is no mapping.
    """
    grades = record.get("annotation")
    if _empty(grades):
        return {name: grade for name, grade in record.items() if plain_name(str(name)) in mapped}
    if isinstance(grades, str):
        try:
            grades = json.loads(grades)
        except (ValueError, RecursionError) as error:
            problem = f"the annotation is not valid JSON ({error})"
            raise InputError(problem, remedy=_GRADES_REMEDY, field="annotation") from None
    if not isinstance(grades, Mapping):
        raise InputError(f"the annotation is {str(grades)[:50]!r}", remedy=_GRADES_REMEDY, field="annotation")
    return grades


def _empty(value: object) -> bool:
    return (isinstance(value, str) and not value) or is_missing(value)


def _cell(record: Mapping[Any, Any], name: str) -> str:
    try:
        return as_text(record[name]).strip()
    except ValueError as error:
        raise InputError(f"the value {error}", remedy="Correct the entry", field=name) from None


def read_annotations(path: Path, checklist: Checklist, *, without: Collection[str] = ()) -> pd.DataFrame:
    """Read annotations of a file: labels (video_id, question_id, label), or grades that the checklist makes labels of.

    Args:
        path: csv, tsv, json, jsonl or parquet; see :func:`vr_pipeline.storage.tables.read_entries`. Or a journal of
            ``kedro annotate --checklist``; see :func:`vr_pipeline.judges.training.graded.labels_of_journal`.
        checklist: has the questions, and the grade maps.
        without: annotators of a journal whose grades do not count.

    Returns:
        schema ``JudgeAnnotations``, with prompt, caption, split, source and file where they are given.

    Raises:
        InputError: the file cannot be read, or as :func:`annotations_from_grades`, or more than one row and more than
            a tenth of them cannot be used; fewer are left out with a warning.
    """
    if is_journal(path):
        return labels_of_journal(path, checklist, without=without)
    entries = read_entries(path)
    known = ("question_id", "label", "annotation", *_CLIP_COLUMNS, *_FILE_COLUMNS, *_KEPT_COLUMNS)
    table = entries.table().rename(columns={entries.find(name): name for name in known})
    problems = entries.problems()
    try:
        if not {"question_id", "label"} <= set(table.columns):
            labels, wrong = _labels_of_grades(table, checklist)
        else:
            labels, wrong = _labels(table)
    except InputError as error:
        raise error.at(file=path) from None
    problems += [one.at(file=path) for one in wrong]
    left_out(problems, len(entries.rows), what="annotations")
    return labels


def _labels(table: pd.DataFrame) -> tuple[pd.DataFrame, list[InputError]]:
    """Labels as they stand in a table whose index holds the row numbers, and what is wrong with rows."""
    if "video_id" not in table.columns:
        raise InputError("a column is missing", remedy="Name the clip of each label", field="video_id")
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    texts = [name for name in ("video_id", "question_id", "label", "file", *_KEPT_COLUMNS) if name in table.columns]
    rows: list[dict[str, object]] = []
    problems: list[InputError] = []
    for row, record in zip(table.index, table.to_dict("records"), strict=True):
        try:
            values: dict[str, object] = {name: _cell(record, name) for name in texts}
            label = words.get(str(values["label"]).lower().removesuffix(".0"))
            if label is None:
                remedy = "Write yes or no (or true, false, 1, 0)"
                raise InputError(f"the label is '{values['label']}'", remedy=remedy, field="label")
            rows.append({**{str(name): value for name, value in record.items()}, **values, "label": label})
        except InputError as error:
            problems.append(error.at(row=int(row)))
    return pd.DataFrame(rows, columns=list(table.columns)), problems
