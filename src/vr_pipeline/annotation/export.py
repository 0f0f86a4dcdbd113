"""Answers and their clips as files of their own, which stay when the clips of a run are made anew."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.preferences.journal import OVERALL
from vr_pipeline.storage.csv_cells import write_csv


def export_answers(journal: Path, files: Mapping[str, Path], folder: Path, *, raw: bool = False) -> dict[str, Any]:
    """Write ``preferences.csv`` (plain format, with both_bad) and the folder ``clips`` that it names.

    Args:
        files: path of every clip by the name that the journal has for it.
        folder: where to write; must be empty or new.
        raw: write also texts that a spreadsheet would run as they are; see :mod:`vr_pipeline.storage.csv_cells`.

    Returns:
        ``answers`` and ``clips`` that were written, and ``missing``: clips that are no longer there; answers about
        them are left out.

    Raises:
        InputError: the folder holds something already, or no answer can be written.
    """
    table = read_preferences(journal, "annotations", criterion=OVERALL)
    if folder.exists() and any(folder.iterdir()):
        raise InputError("the folder is not empty", remedy="name a new one", file=folder, field="--export")
    named = sorted(set(table["video_path_a"]) | set(table["video_path_b"]))
    missing = [name for name in named if name not in files or not files[name].is_file()]
    kept = table[~table["video_path_a"].isin(missing) & ~table["video_path_b"].isin(missing)]
    if not len(kept):
        raise InputError(
            f"none of the {len(table)} answers is about clips that are still there",
            remedy="export before the clips are made anew",
            file=journal,
        )
    clips = sorted(set(kept["video_path_a"]) | set(kept["video_path_b"]))
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for name in clips:
        target = folder / "clips" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(files[name], target)
    write_csv(kept, folder / "preferences.csv", raw=raw)
    return {
        "answers": len(kept),
        "clips": len(clips),
        "missing": [f"clip {name} is not there any more; its answers are left out" for name in missing],
    }
