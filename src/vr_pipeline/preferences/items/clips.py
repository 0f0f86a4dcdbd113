"""Clips of labelled items in one folder, found by name or made from frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.clip_names import ClipNames
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.tables import left_out
from vr_pipeline.video.read import read_frames
from vr_pipeline.video.write import write_video

FRAMES_FOLDER = "frames"
"""Subfolder of clips made from frames."""


def with_clips(items: pd.DataFrame, names: ClipNames, *, file: Path, fps: float) -> pd.DataFrame:
    """Return items with the paths of their clips in the folder; frames are joined to a lossless clip there.

    Items with missing or unreadable files are skipped with a warning.

    Args:
        items: from :func:`~vr_pipeline.preferences.items.formats.read_items`.
        names: the files of the folder.
        file: the file of the items, for messages.
        fps: rate of clips made from frames, in 1/s.

    Returns:
        the items, with ``video_path_a`` and ``video_path_b`` instead of ``files_a`` and ``files_b``.

    Raises:
        InputError: too many items have no clips.
    """
    wanted = {
        identifier: tuple(files)
        for side in "ab"
        for identifier, files in zip(items[f"video_id_{side}"], items[f"files_{side}"], strict=True)
        if identifier
    }
    paths: dict[str, str] = {"": ""}
    why: dict[str, InputError] = {}
    for identifier, files in progress_bar(wanted.items(), description="find clips of items", unit="clip"):
        try:
            paths[identifier] = _clip_of(identifier, files, names, fps)
        except InputError as error:
            why[identifier] = error
    problems = []
    for number, clips in enumerate(zip(items["video_id_a"], items["video_id_b"], strict=True), start=1):
        if wrong := next((why[clip] for clip in clips if clip in why), None):
            problems.append(InputError(wrong.problem, remedy=wrong.remedy, file=file, row=number, field="files"))
    bad = left_out(problems, len(items), what="labelled items")
    kept = items[[number not in bad for number in range(1, len(items) + 1)]].reset_index(drop=True)
    for side in "ab":
        kept[f"video_path_{side}"] = [paths[identifier] for identifier in kept[f"video_id_{side}"]]
    return kept.drop(columns=["files_a", "files_b"])


def clips_of_items(items: pd.DataFrame) -> pd.DataFrame:
    """Return the clips of items from :func:`with_clips` for the table ``preference_clips``, one row each.

    Columns: video_id, prompt, file, sample_index (within a prompt), seed (0, unknown) and generator ('given').
    """
    sides = [
        pd.DataFrame({"video_id": items[f"video_id_{s}"], "prompt": items["prompt"], "file": items[f"video_path_{s}"]})
        for s in "ab"
    ]
    clips = pd.concat(sides, ignore_index=True).drop_duplicates("video_id")
    clips = clips[clips["video_id"] != ""].sort_values(["prompt", "video_id"], ignore_index=True, kind="stable")
    clips["sample_index"] = clips.groupby("prompt").cumcount()
    return clips.assign(seed=0, generator="given")


def _clip_of(identifier: str, files: Sequence[str], names: ClipNames, fps: float) -> str:
    found = []
    for name in files:
        path = names.find(name)
        if path is None:
            problem, remedy = names.why_not(name)
            raise InputError(problem, remedy=remedy)
        found.append(path)
    if len(found) == 1:
        return found[0]
    made = f"{FRAMES_FOLDER}/{identifier}.mp4"
    target = names.folder / made
    if not target.is_file():
        frames = [read_frames(names.folder / path) for path in found]
        sizes = {frame.shape[1:3] for frame in frames}
        if len(sizes) > 1 or any(len(frame) != 1 for frame in frames):
            raise InputError("the frames of a clip are not pictures of the same size", remedy="resize them")
        write_video(target, np.concatenate(frames), fps=fps)
    return made
