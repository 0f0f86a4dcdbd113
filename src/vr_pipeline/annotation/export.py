"""Export of answers with copies of their clips."""

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
    """Write ``preferences.csv`` (plain format, with both_bad) and its clips in the folder ``clips``.

    Args:
        journal: the journal of answers.
        files: path of every clip by its name in the journal.
        folder: empty or new.
        raw: do not escape texts that a spreadsheet would execute; see :mod:`vr_pipeline.storage.csv_cells`.

    Returns:
        numbers of written ``answers`` and ``clips``, and messages about ``missing`` clips, whose answers are skipped.

    Raises:
        InputError: the folder is not empty, or no answer can be written.
    """
    table = read_preferences(journal, "annotations", criterion=OVERALL)
    if folder.exists() and any(folder.iterdir()):
        raise InputError("the folder is not empty", remedy="give a new one", file=folder, field="--export")
    named = sorted(set(table["video_path_a"]) | set(table["video_path_b"]))
    missing = [name for name in named if name not in files or not files[name].is_file()]
    kept = table[~table["video_path_a"].isin(missing) & ~table["video_path_b"].isin(missing)]
    if not len(kept):
        raise InputError(
            f"the clips of all {len(table)} answers are missing",
            remedy="export before the clips are generated again",
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
        "missing": [f"clip {name} is missing; its answers are skipped" for name in missing],
    }
