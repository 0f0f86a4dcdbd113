"""Find the clips of a table of preferences, which are named by path, file name or identifier."""

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
    """The clips of a folder under all their names.

    Args:
        folder: the folder of clips.
        files: paths relative to it, with forward slashes.
        near: another start of paths in the table, usually its folder.
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
        """Return the file with a name, relative to the folder; None if there is none or several.

        Tried in order: path within the folder, path from the table's folder, the working directory or the root, file
        name, file name or path without suffix; compared with :func:`vr_pipeline.identifiers.same_path`.
        """
        if name.strip() in self.files:
            return name.strip()
        plain = same_path(name)
        inside = [_within((start / plain).absolute(), self.folder.absolute()) for start in (self._near, Path.cwd())]
        found = [self._paths.get(same_path(path), []) for path in (plain, *filter(None, inside))]
        return next((files[0] for files in [*found, self._short.get(plain, [])] if len(files) == 1), None)

    def why_not(self, name: str) -> tuple[str, str]:
        """Return the problem and remedy of a name that :meth:`find` did not find."""
        plain = same_path(name)
        several = self._short.get(plain, [])
        if len(several) > 1:
            return f"'{name}' can be {several[0]} or {several[1]}", "give the path within the folder of clips"
        close = difflib.get_close_matches(PurePosixPath(plain).name, list(self._short), n=1)
        hint = f" (perhaps {self._short[close[0]][0]} is meant)" if close else ""
        return f"there is no clip '{name}' in {self.folder}{hint}", "correct the name or add the clip to the folder"


def with_found_clips(preferences: pd.DataFrame, names: ClipNames) -> pd.DataFrame:
    """Return preferences with video_path_a and video_path_b as paths within the folder of clips.

    Identifiers of clips named by path are computed from the found path, so that two spellings of a file are one clip.
    Names that are not found are unchanged.
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
