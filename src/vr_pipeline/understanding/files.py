"""Users' files: questions about clips and images, and pairs of responses to them.

One of :data:`MEDIA_COLUMNS` has a video, an image, or a list of images that are the frames of a clip; without such a
column the file is the row's ``id``.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.preferences.clip_names import ClipNames
from vr_pipeline.storage.tables import Entries, left_out, read_entries
from vr_pipeline.storage.values import as_number, as_text, is_missing

MEDIA_COLUMNS = ("video", "image", "frames", "clip", "images", "video_path", "image_path", "file", "path")
"""Possible names of the column with the clip or images, in order of preference and in any case."""
QUESTION_COLUMNS = ("question_id", "group", "prompt", "answer", "files")
PAIR_COLUMNS = ("pair_id", "question_id", "group", "prompt", "files", "chosen", "rejected", "chosen_score")
_MEDIA_NAME = re.compile(r"\S+\.(mp4|webm|mkv|avi|mov|gif|png|jpe?g|webp)", re.IGNORECASE)
_PLACES = re.compile(r"^(<(image|video)>\s*)+|(\s*<(image|video)>)+$")
"""Placeholders of a clip in the questions of public files; here the dialogue has the place of the clip."""

Row = Mapping[str, Any]


def read_questions(path: Path, names: ClipNames) -> pd.DataFrame:
    """Read questions: id, clip or images, ``prompt``, and optionally ``answer`` and ``group``.

    Args:
        path: a file for :func:`vr_pipeline.storage.tables.read_entries`.
        names: the clips and images of a folder under all their names.

    Returns:
        question_id, group (a group stays on one side of the split; by default the questions about the same files),
        prompt, answer (a correct one; empty if unknown) and files (a JSON list of names in the folder).

    Raises:
        InputError: a column is missing, or too many rows are unusable; a few are dropped with a warning.
    """
    entries = read_entries(path)
    reader = _Reader(entries, names, ("prompt", "question", "caption"))

    def question(row: Row) -> dict[str, str]:
        files = reader.files(row)
        return reader.named(row, files) | {"answer": reader.text(row, "answer", needed=False)}

    # A file of pairs repeats a question for each pair of responses.
    table = reader.table(question, QUESTION_COLUMNS, "questions").drop_duplicates(ignore_index=True)
    return _each_once(table, "question_id", path)


def read_response_pairs(path: Path, names: ClipNames) -> pd.DataFrame:
    """Read pairs of responses: id, clip or images, ``prompt`` (or ``caption``), ``chosen``, ``rejected``, ``scores``.

    Files of UnifiedReward (id, caption, chosen, rejected) with pairs of texts are also possible.

    Args:
        path: a file for :func:`vr_pipeline.storage.tables.read_entries`.
        names: the clips and images of a folder under all their names.

    Returns:
        :data:`PAIR_COLUMNS` and rejected_score; NaN for missing points.

    Raises:
        InputError: a column is missing, the pairs are clips, or too many rows are unusable; a few are dropped with a
            warning.
    """
    entries = read_entries(path)
    reader = _Reader(entries, names, ("prompt", "question", "caption"))
    for name in ("chosen", "rejected"):
        reader.column(name)

    def pair(row: Row) -> dict[str, Any]:
        chosen, rejected = (reader.text(row, name) for name in ("chosen", "rejected"))
        if _MEDIA_NAME.fullmatch(chosen) and _MEDIA_NAME.fullmatch(rejected):
            raise InputError(
                f"this is a pair of clips or images ('{chosen}'), not of responses",
                remedy="Use the pipeline given_dpo to train a generator on them",
                field="chosen",
            )
        if chosen == rejected:
            raise InputError("both responses are the same", remedy="Remove the row", field="rejected")
        named = reader.named(row, reader.files(row))
        scores = reader.scores(row)
        identifier = content_hash("response pair", named["question_id"], chosen, rejected)
        return named | {"pair_id": identifier, "chosen": chosen, "rejected": rejected} | scores

    table = reader.table(pair, (*PAIR_COLUMNS, "rejected_score"), "pairs of responses")
    return _each_once(table, "pair_id", path)


class _Reader:
    """Columns of a file, and its rows as a table."""

    def __init__(self, entries: Entries, names: ClipNames, prompts: tuple[str, ...]) -> None:
        self.entries, self.names = entries, names
        self.prompt = self.column(*prompts)
        self.media = entries.find(*MEDIA_COLUMNS)
        self.identifier = entries.find("id", "question_id")
        if self.media is None and self.identifier is None:
            raise InputError(
                "no column has the clip or images",
                remedy="Add a column 'video', 'image' or 'frames' with file names, or a column 'id' that has them",
                file=entries.path,
                field="video",
            )

    def column(self, *names: str) -> str:
        found = self.entries.find(*names)
        if found is None:
            raise InputError(
                "a column is missing",
                remedy=f"Add it; the file has {', '.join(self.entries.columns) or 'none'}",
                file=self.entries.path,
                field=names[0],
            )
        return found

    def table(self, read: Callable[[Row], dict[str, Any]], columns: tuple[str, ...], what: str) -> pd.DataFrame:
        problems = self.entries.problems()
        rows = []
        for entry in self.entries.rows:
            if entry.problem:
                continue
            try:
                rows.append(read(entry.values))
            except InputError as error:
                problems.append(error.at(file=self.entries.path, row=entry.row))
        left_out(problems, len(self.entries.rows), what=what)
        return pd.DataFrame(rows, columns=list(columns))

    def text(self, row: Row, name: str, *, needed: bool = True) -> str:
        found = self.entries.find(name)
        try:
            value = as_text(row.get(found)).strip() if found is not None else ""
        except ValueError as error:
            raise InputError(f"the value {error}", remedy="Correct it", field=name) from None
        if needed and not value:
            raise InputError("the text is empty", remedy="Add it or remove the row", field=name)
        return value

    def named(self, row: Row, files: list[str]) -> dict[str, str]:
        """Return identifier, group, question and files of a row."""
        prompt = _PLACES.sub("", self.text(row, self.prompt)).strip()
        if not prompt:
            raise InputError("the text is empty", remedy="Add it or remove the row", field=self.prompt)
        given = self.text(row, self.identifier, needed=False) if self.identifier else ""
        shown = json.dumps(files, ensure_ascii=False)
        group = self.text(row, "group", needed=False) or content_hash("shown", shown)
        return {
            "question_id": given or content_hash("question", shown, prompt),
            "group": group,
            "prompt": prompt,
            "files": shown,
        }

    def files(self, row: Row) -> list[str]:
        """Return the files of a row, by their names in the folder."""
        column = self.media or self.identifier
        assert column is not None
        found = []
        for name in _names_in(row.get(column), column):
            file = self.names.find(name)
            if file is None:
                problem, remedy = self.names.why_not(name)
                raise InputError(problem, remedy=remedy, field=column)
            found.append(file)
        return found

    def scores(self, row: Row) -> dict[str, float]:
        """Return points of both responses; NaN if the file has none."""
        column = self.entries.find("scores")
        given = row.get(column) if column is not None else None
        values = [row.get(self.entries.find(f"{end}_score") or "") for end in ("chosen", "rejected")]
        if column is not None and not is_missing(given):
            values = _list_of(given)
        try:
            chosen, rejected = (as_number(value) for value in values)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the points are not two numbers ({error})", remedy="Give [chosen, rejected]", field="scores"
            ) from None
        if np.isnan(chosen) != np.isnan(rejected):
            raise InputError("one response has no points", remedy="Give both points or none", field="scores")
        if chosen <= rejected:
            raise InputError(
                f"the chosen response has {chosen:g} points, but the rejected one {rejected:g}",
                remedy="Exchange the responses or remove the row",
                field="scores",
            )
        return {"chosen_score": chosen, "rejected_score": rejected}


def _list_of(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]
    return list(value) if isinstance(value, list | tuple | np.ndarray) else [value]


def _names_in(value: Any, column: str) -> list[str]:
    """Return the file names in a cell: one, or a list (JSON in a text file)."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        values = [value]
    else:
        values = [] if is_missing(value) else _list_of(value)
    names = [name.strip() if isinstance(name, str) else str(name) for name in values]
    if not names or not all(names):
        raise InputError("a file name is missing", remedy="Give a file, or several frames", field=column)
    return names


def _each_once(table: pd.DataFrame, column: str, path: Path) -> pd.DataFrame:
    twice = table[column].duplicated().to_numpy()
    if twice.any():
        raise InputError(
            f"'{table[column].iloc[int(twice.argmax())]}' is duplicated",
            remedy="Give every row its own id, and each pair once",
            file=path,
            field="id",
        )
    return table


def media_names(folder: Path, table: Path) -> ClipNames:
    """Return the clips and images of a folder under all their names; other and hidden files are ignored."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    shown = [name for name in files if _MEDIA_NAME.fullmatch(PurePosixPath(name).name.replace(" ", "_"))]
    return ClipNames(folder, shown, near=table.parent)
