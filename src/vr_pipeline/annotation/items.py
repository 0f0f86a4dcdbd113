"""Clips to grade: those of a study, and those with known grades for training and control."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from vr_pipeline.annotation.guide import inside
from vr_pipeline.checklist.schema import Checklist, grade_key, plain_name
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.judges.training.annotations import grades_of_row
from vr_pipeline.storage.tables import read_entries
from vr_pipeline.storage.values import is_missing


@dataclass(frozen=True)
class GradedClip:
    """A clip to grade, with known grades by sub-dimension for training and control items."""

    video_id: str
    prompt: str
    file: str
    generator: str
    path: Path
    known: Mapping[str, str] = field(default_factory=dict)


def clips_to_grade(index: pd.DataFrame, files: Mapping[str, Path], *, seed: int) -> list[GradedClip]:
    """Return the usable clips of a video index in an order drawn by the seed."""
    found = [
        GradedClip(
            str(row["video_id"]), str(row["prompt"]), str(row["path"]), str(row["generator"]), files[str(row["path"])]
        )
        for row in index[index["status"] == "ok"].to_dict("records")
        if str(row["path"]) in files
    ]
    if not found:
        raise InputError("there are no clips to grade", remedy="make clips, or use another --source", field="--source")
    return sorted(found, key=lambda clip: content_hash("order", seed, clip.video_id))


def known_items(folder: Path, name: str | None, checklist: Checklist, clips: Sequence[GradedClip]) -> list[GradedClip]:
    """Return the clips of a table of known grades, with the columns of VisionRewardDB or one per sub-dimension.

    Args:
        folder: of the guide.
        name: the table, relative to the folder; None for none.
        checklist: the graded checklist.
        clips: clips of the study, named by identifier or file; other clips are files next to the table.

    Raises:
        InputError: the table cannot be read, or a row has no clip, no grade or an unknown grade.
    """
    if name is None:
        return []
    path = inside(folder, name, file=None, field="training, control")
    entries = read_entries(path)
    problems = entries.problems()
    if problems:
        raise problems[0]
    column = entries.find("video_id", "video_path", "file", "image")
    if column is None:
        raise InputError("the column of clips is missing", remedy="give the column video_id or file", file=path)
    prompt = entries.find("prompt")
    mapped = {plain_name(sub.name): sub for sub in checklist.graded}
    of_study = {key: clip for clip in reversed(clips) for key in (clip.file, clip.video_id)}
    items: list[GradedClip] = []
    for entry in entries.rows:
        values = entry.values
        try:
            given = grades_of_row(values, {key: sub.name for key, sub in mapped.items()})
        except InputError as error:
            raise error.at(file=path, row=entry.row) from None
        known = {
            mapped[plain_name(str(sub))].name: grade_key(grade)
            for sub, grade in given.items()
            if plain_name(str(sub)) in mapped and grade != "" and not is_missing(grade)
        }
        for sub in checklist.graded:
            if known.get(sub.name, "") not in ("", *sub.scale):
                raise InputError(
                    f"grade '{known[sub.name]}' is not a grade of sub-dimension '{sub.name}'",
                    remedy=f"use one of {', '.join(sub.scale)}",
                    file=path,
                    row=entry.row,
                    field=sub.name,
                )
        clip = str(values.get(column) or "")
        twice = any(item.video_id == clip for item in items)
        if not known or twice:
            problem = f"clip '{clip}' is listed twice" if twice else "the row has no grade"
            raise InputError(problem, remedy="give one row per clip, with at least one grade", file=path, row=entry.row)
        same = of_study.get(clip)
        items.append(
            GradedClip(
                clip,
                str((values.get(prompt) if prompt else None) or (same.prompt if same else "")),
                same.file if same else clip,
                same.generator if same else "",
                same.path if same else inside(path.parent, clip, file=path, field=column),
                known,
            )
        )
    return items
