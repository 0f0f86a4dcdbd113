"""Annotated clips: from tables to training examples, and from people's grades to answers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.judges.answers import clip_path
from vr_pipeline.judges.training import JudgeExample
from vr_pipeline.video.read import VideoReadError, read_clip

logger = logging.getLogger(__name__)


def collect_examples(
    annotations: pd.DataFrame,
    video_index: pd.DataFrame,
    videos: Any,
    *,
    num_frames: int | None = None,
    frames_per_second: float | None = None,
    reader_threads: int = 2,
) -> list[JudgeExample]:
    """Clips with their answers.

    Args:
        annotations: schema ``JudgeAnnotations``: video_id, question_id, label; optional prompt (else that of the
            index), caption, split and source. Rows of one clip and prompt make one example.
        video_index: schema ``VideoIndex``; clips of status 'failed' are left out.
        videos: the folder of clips.
        num_frames, frames_per_second: which frames are read.
        reader_threads: threads that decode.

    Returns:
        examples in the order of the index. Clips that do not decode are left out with a warning.

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
    if "prompt" not in table.columns:
        table["prompt"] = table["video_id"].map(lambda video: by_id[video]["prompt"])
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
        try:
            path = clip_path(videos, video, str(by_id[video]["path"]))
            frames, indices, information = read_clip(path, num_frames=num_frames, fps=frames_per_second)
        except VideoReadError as error:
            return error
        return frames, information.fps * len(indices) / max(information.num_frames, 1) or None

    wanted = list(dict.fromkeys(video for video, _, _ in grouped))
    with ThreadPoolExecutor(reader_threads) as pool:
        clips = dict(zip(wanted, pool.map(read, wanted), strict=True))
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
        )
        for video, prompt, rows in grouped
        if video not in failed
    ]


def annotations_from_grades(graded: pd.DataFrame, checklist: Checklist) -> pd.DataFrame:
    """Labels from people's grades, in the form of VisionRewardDB or one column a sub-dimension.

    Args:
        graded: video_id (or video_path, image, internal_id in its place), and either a column ``annotation`` with a
            mapping sub-dimension -> grade, or one column a sub-dimension of the checklist.
        checklist: has a grade map for the sub-dimensions.

    Returns:
        schema ``JudgeAnnotations``: video_id, question_id, label, in the order given.

    Raises:
        InputError: no column names the clips, or a grade is not in the checklist's map.
    """
    names = [name for name in ("video_id", "video_path", "image", "internal_id") if name in graded.columns]
    if not names:
        raise InputError(
            "no column names the clips", remedy="Give the column video_id (or video_path)", field="video_id"
        )
    subs = [sub.name for sub in checklist.sub_dimensions]
    rows: list[dict[str, object]] = []
    for number, record in enumerate(graded.to_dict("records")):
        grades = record.get("annotation")
        if not isinstance(grades, Mapping):
            grades = {sub: record[sub] for sub in subs if sub in record and not pd.isna(record[sub])}
        try:
            answers = checklist.answers_from_grades(grades)
        except InputError as error:
            raise InputError(error.problem, remedy=error.remedy, row=number + 2, field=error.field) from None
        rows.extend(
            {"video_id": str(record[names[0]]), "question_id": question, "label": answer}
            for question, answer in answers.items()
        )
    return pd.DataFrame(rows, columns=["video_id", "question_id", "label"])
