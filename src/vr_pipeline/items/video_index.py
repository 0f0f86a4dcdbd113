"""Tables of the clips in a folder, one row per clip."""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.atomic import sha256_of
from vr_pipeline.storage.values import as_text
from vr_pipeline.video.clip import VideoInformation
from vr_pipeline.video.read import VideoReadError, read_clip

COLUMNS = [
    "video_id",
    "prompt_id",
    "prompt",
    "sample_index",
    "seed",
    "generator",
    "path",
    "num_frames",
    "fps",
    "height",
    "width",
    "sha256",
    "status",
    "error",
]


def index_made_clips(folder: ItemFolder) -> pd.DataFrame:
    """Return the video index of clips that were made here, from the folder's manifest.

    Args:
        folder: clips whose metadata have prompt_id, prompt, sample_index, seed and generator.

    Returns:
        table with the columns of ``schemas.VideoIndex`` (and further metadata), sorted by prompt, then sample.
    """
    if folder.records.empty:
        return pd.DataFrame(columns=COLUMNS)
    records = folder.records.rename(columns={"key": "video_id", "filename": "path"})
    for column in ("num_frames", "height", "width"):
        # A failed clip has no file and no size.
        records[column] = (records[column] if column in records else pd.Series(0, records.index)).fillna(0).astype(int)
    extra = [name for name in records.columns if name not in {*COLUMNS, "identity", "bytes"}]
    return records.sort_values(["prompt_id", "sample_index", "video_id"], ignore_index=True, kind="stable")[
        [*COLUMNS, *extra]
    ]


def index_given_clips(
    clips: pd.DataFrame,
    folder: Mapping[str, Path],
    *,
    source: str,
    examine: Callable[[VideoInformation], Mapping[str, object]] | None = None,
) -> pd.DataFrame:
    """Return the video index of clips that a user supplied.

    A clip that is missing or does not decode to its last frame is kept with status 'failed' and the reason.

    Args:
        clips: table with video_id, prompt and file; further columns sample_index, seed and generator if known.
        folder: path of every file by its name.
        source: the file the table came from, for messages.
        examine: returns further columns of a readable clip; a problem is in ``error``.

    Returns:
        table with the columns of ``schemas.VideoIndex``, in the order given, and those of ``examine``.

    Raises:
        InputError: a column or value is missing, or a video_id appears twice.
    """
    for column in ("video_id", "prompt", "file"):
        if column not in clips:
            raise InputError(
                "a column is missing",
                file=source,
                field=column,
                remedy="give a table with the columns video_id, prompt and file",
            )
        blank = clips[column].isna() | (clips[column].astype(str).str.strip() == "")
        if blank.any():
            raise InputError(
                "a cell is empty",
                file=source,
                row=int(blank.to_numpy().argmax()) + 2,
                field=column,
                remedy="give every clip a video_id, its prompt and its file",
            )
    twice = clips["video_id"].astype(str).duplicated()
    if twice.any():
        position = int(twice.to_numpy().argmax())
        raise InputError(
            f"video_id {clips['video_id'].iloc[position]!r} appears a second time",
            file=source,
            row=position + 2,
            field="video_id",
            remedy="give every clip its own video_id",
        )
    rows = []
    for clip in progress_bar(clips.to_dict("records"), description="index given clips", unit="clip"):
        name = str(clip["file"])
        base: dict[str, object] = {
            "video_id": as_text(clip["video_id"]),
            "prompt_id": prompt_id(str(clip["prompt"])),
            "prompt": str(clip["prompt"]),
            "sample_index": _whole(clip, "sample_index", source),
            "seed": _whole(clip, "seed", source),
            "generator": as_text(clip.get("generator")) or "given",
            "path": name,
        }
        found, information = _inspect(folder.get(name))
        row = base | found
        if examine is not None and information is not None:
            row |= examine(information)
        rows.append(row | ({"status": "failed"} if row["error"] else {}))
    further = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    return pd.DataFrame(rows, columns=[*COLUMNS, *further])


def _whole(row: Mapping[Hashable, Any], column: str, source: str) -> int:
    """Return a whole number of an optional column; 0 if the column or the cell is missing."""
    try:
        return int(as_text(row.get(column)) or 0)
    except ValueError:
        raise InputError(
            f"clip '{row['video_id']}' has '{row[column]}', which is no whole number",
            remedy="correct the cell, or leave it empty",
            file=source,
            field=column,
        ) from None


def _inspect(path: Path | None) -> tuple[dict[str, object], VideoInformation | None]:
    nothing = {"num_frames": 0, "fps": 0.0, "height": 0, "width": 0, "sha256": "", "status": "failed"}
    if path is None:
        return nothing | {"error": "there is no such file in the folder of clips"}, None
    try:
        # First and last frame, because truncation is visible at the end.
        _, _, information = read_clip(path, num_frames=2)
    except VideoReadError as error:
        return nothing | {"error": str(error)}, None
    found = {
        "num_frames": information.num_frames,
        "fps": information.fps,
        "height": information.height,
        "width": information.width,
        "sha256": sha256_of(path),
        "status": "ok",
        "error": "",
    }
    return found, information
