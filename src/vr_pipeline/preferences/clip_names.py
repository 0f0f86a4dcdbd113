"""Finds the files that a table of preferences means: people name clips by path, by file name or by identifier."""

from __future__ import annotations

import difflib
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from vr_pipeline.identifiers import pair_id, prompt_id, same_name, same_path
from vr_pipeline.preferences.rows import file_identifier


class ClipNames:
    """Clips of a folder under all the names they may be called by.

    Args:
        folder: the folder of clips.
        files: paths relative to it, with forward slashes.
        near: the folder that paths in the table may start from besides, usually that of the table.
    """

    def __init__(self, folder: Path, files: Iterable[str], near: Path) -> None:
        self.folder, self._near = folder, near
        self.files = frozenset(files)
        self._paths: dict[str, list[str]] = defaultdict(list)
        self._short: dict[str, list[str]] = defaultdict(list)
        for file in sorted(self.files):
            self._paths[same_path(file)].append(file)
            path = PurePosixPath(same_name(file))
            for name in {path.name, path.stem, path.with_suffix("").as_posix()}:
                self._short[name].append(file)

    def find(self, name: str) -> str | None:
        """Return the file that a name means, relative to the folder; None if there is none or the name fits several.

        Tried in this order: the path within the folder, the path from the table's folder, from the working directory
        or from the root, the file's name, the file's name or path without its suffix. Names are compared as
        :func:`vr_pipeline.identifiers.same_path` says.
        """
        if name.strip() in self.files:
            return name.strip()
        plain = same_path(name)
        inside = [_within((start / plain).absolute(), self.folder.absolute()) for start in (self._near, Path.cwd())]
        found = [self._paths.get(same_path(path), []) for path in (plain, *filter(None, inside))]
        return next((files[0] for files in [*found, self._short.get(plain, [])] if len(files) == 1), None)

    def why_not(self, name: str) -> tuple[str, str]:
        """Return the problem with a name that :meth:`find` did not find, and what to do."""
        plain = same_path(name)
        several = self._short.get(plain, [])
        if len(several) > 1:
            return (
                f"'{name}' may be {several[0]} or {several[1]}",
                "name the clip by its path within the folder of clips",
            )
        close = difflib.get_close_matches(PurePosixPath(plain).name, list(self._short), n=1)
        hint = f" (perhaps {self._short[close[0]][0]} is meant)" if close else ""
        return f"there is no clip '{name}' in {self.folder}{hint}", "correct the name or add the clip to the folder"


def with_found_clips(preferences: pd.DataFrame, names: ClipNames) -> pd.DataFrame:
    """Preferences with video_path_a and video_path_b as paths within the folder of clips.

    A clip named by its path has its identifier from the path, so one file under two spellings is one clip; a clip
    named by an identifier keeps it. Names that are not found stay as they are.
    """
    known: dict[str, str] = {}

    def identifier_of(row: dict[Hashable, Any]) -> str:
        return pair_id(prompt_id(row["prompt"]), row["video_id_a"], row["video_id_b"])

    rows = preferences.to_dict("records")
    for row in rows:
        made_here = row["pair_id"] == identifier_of(row)
        for side in "ab":
            path, identifier = row[f"video_path_{side}"], row[f"video_id_{side}"]
            name = path or identifier
            if name not in known:
                known[name] = names.find(name) or name
            row[f"video_path_{side}"] = known[name]
            if path and identifier == file_identifier(row["prompt"], path):
                row[f"video_id_{side}"] = file_identifier(row["prompt"], known[name])
        if made_here:
            row["pair_id"] = identifier_of(row)
    table = pd.DataFrame(rows, columns=preferences.columns, index=preferences.index).astype(preferences.dtypes)
    table.attrs |= preferences.attrs
    return table


def _within(path: Path, folder: Path) -> str | None:
    plain = Path(os.path.normpath(path))
    return plain.relative_to(folder).as_posix() if plain.is_relative_to(folder) else None
