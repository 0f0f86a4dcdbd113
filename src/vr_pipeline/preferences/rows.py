"""Rows of a file of preferences, with their problems."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import pair_id, prompt_id, same_name, same_path, video_id
from vr_pipeline.storage.tables import Entries, Entry, bad_rows
from vr_pipeline.storage.values import as_number, as_text, is_missing

_ROUNDED = re.compile(r"-?\d[.,]\d+[eE]\+\d+")
_WHOLE = re.compile(r"(?<=\d)\.0+$")
"""Suffix of integers in columns with gaps: '1.0' is the label '1'."""


class Comparison(NamedTuple):
    """A comparison with the values of the file.

    Attributes:
        files: paths of the clips, if known.
        preference: a, b or tie.
        identifiers: of the clips; None to compute them from prompt and path.
        pair: identifier of the pair; empty to compute it from prompt and clips.
        more: other columns.
    """

    prompt: Any
    files: tuple[Any, Any]
    preference: str
    annotator: Any = ""
    generators: tuple[Any, Any] = ("", "")
    source: Any = ""
    identifiers: tuple[Any, Any] | None = None
    pair: Any = ""
    more: Mapping[str, Any] = {}


@dataclass
class Source:
    """The rows of a file, with the settings of its reader; problems are collected, not raised."""

    entries: Entries
    labels: Mapping[str, str] | None
    columns: dict[str, str]
    criterion: str
    skipped: int = 0
    further_columns: list[str] = field(default_factory=list)
    problems: list[InputError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.problems += self.entries.problems()
        self.good: list[Entry] = [entry for entry in self.entries.rows if not entry.problem]

    @property
    def bad_rows(self) -> set[int]:
        """Rows with a problem."""
        return bad_rows(self.problems)

    def has(self, name: str) -> bool:
        return self.entries.find(self.columns.get(name, name)) is not None

    def column(self, *names: str, required: bool = True) -> list[Any]:
        """Return the values of the first of the columns in the file; empty texts if none is there."""
        for name in names:
            actual = self.entries.find(self.columns.get(name, name))
            if actual is not None:
                return [entry.values.get(actual) for entry in self.good]
        if required and self.good:
            other = "give another criterion (kedro init-data: --criterion NAME), "
            self.problems.append(
                InputError(
                    f"the file has no column '{self.columns.get(names[0], names[0])}', only "
                    f"{', '.join(self.entries.columns[:20])}",
                    remedy=f"{other if names[0] == self.criterion else ''}use the right format, or map the column in "
                    f"'columns' (kedro init-data: --column {names[0]}=COLUMN)",
                    field=names[0],
                    file=self.entries.path,
                )
            )
        return [""] * len(self.good)

    def columns_of(self, names: Sequence[Sequence[str]], *, required: bool = True) -> list[tuple[Any, ...]]:
        """Return the values of several columns by row; see :meth:`column`."""
        return list(zip(*(self.column(*one, required=required) for one in names), strict=True))

    def reject(self, position: int, field: str, problem: str, remedy: str = "correct the entry") -> None:
        """Add a problem of a row, which is then skipped."""
        row = self.good[position].row
        self.problems.append(InputError(problem, remedy=remedy, file=self.entries.path, row=row, field=field))

    def text(self, value: Any, position: int, field: str) -> str:
        try:
            return as_text(value)
        except ValueError as error:
            self.reject(position, field, f"the value {error}")
            return ""

    def name(self, value: Any, position: int, field: str) -> str:
        """Return an identifier; one rounded by a spreadsheet is rejected, since it is ambiguous."""
        name = same_name(self.text(value, position, field))
        if _ROUNDED.fullmatch(name):
            self.reject(position, field, f"'{name}' is a rounded number", "write identifiers as text")
        return name

    def label(self, value: Any, position: int, field: str) -> str:
        key = _WHOLE.sub("", self.text(value, position, field).strip())
        if self.labels is None:
            problem = f"the meaning of label '{key}' is not documented for this format"
            remedy = "set 'labels', for example {'1': a, '2': b, '0': tie}, after looking at some pairs"
        else:
            known = {label.casefold(): meaning for label, meaning in self.labels.items()}
            if key in self.labels or (key.casefold() in known and len(known) == len(self.labels)):
                return self.labels.get(key) or known[key.casefold()]
            problem = f"unknown label '{key}'" if key else "the label is empty"
            known_labels = ", ".join(self.labels)
            remedy = (
                f"correct it, or map it in 'labels' (kedro init-data: --label LABEL=MEANING; known: {known_labels})"
            )
        self.reject(position, field, problem, remedy)
        return "tie"

    def label_if_any(self, value: Any, position: int, field: str) -> str | None:
        """Return the label of a cell; None if it is empty."""
        empty = not self.text(value, position, field).strip()
        return None if empty and "" not in (self.labels or {}) else self.label(value, position, field)

    def number_if_any(self, value: Any, position: int, field: str) -> float:
        """Return the number of a cell; NaN if it is empty."""
        try:
            return as_number(value)
        except ValueError as error:
            self.reject(position, field, str(error), "give a number, or clear the cell")
            return math.nan

    def numbers(self, values: Any, position: int, field: str, length: int) -> list[float]:
        try:
            result = [as_number(value) for value in values]
        except (TypeError, ValueError):
            result = []
        if len(result) != length or any(map(math.isnan, result)):
            self.reject(position, field, f"{field} needs {length} number{'s' if length > 1 else ''}")
            return [0.0] * length
        return result

    def row(self, position: int, comparison: Comparison) -> tuple[int, dict[str, Any]]:
        """Return the row in the file, and its values by column of the table."""
        prompt, identifiers = comparison.prompt, comparison.identifiers
        text = prompt if isinstance(prompt, str) else ""
        if not isinstance(prompt, str) and not is_missing(prompt):
            self.reject(position, "prompt", f"the prompt is not text but {type(prompt).__name__}", "give the prompt")
        elif not text.strip():
            self.reject(position, "prompt", "the prompt is empty", "give the prompt")
        paths = [path.strip() for path in self._texts(comparison.files, position, "video_path")]
        if identifiers is None:
            kind, ids = "video_path", [file_identifier(text, path) if path else "" for path in paths]
        else:
            names = zip(identifiers, "ab", strict=True)
            kind, ids = "video_id", [self.name(name, position, f"video_id_{side}") for name, side in names]
        for identifier, side in zip(ids, "ab", strict=True):
            if not identifier:
                self.reject(position, f"{kind}_{side}", f"clip {side} is missing", "give both clips")
        if ids[0] == ids[1] and ids[0]:
            self.reject(position, f"{kind}_b", "a clip is compared with itself", "correct the pair")
        models = self._texts(comparison.generators, position, "generator")
        return self.good[position].row, {
            "pair_id": self.name(comparison.pair, position, "pair_id") or pair_id(prompt_id(text), ids[0], ids[1]),
            "prompt": text,
            "video_id_a": ids[0],
            "video_id_b": ids[1],
            "preference": comparison.preference,
            "annotator": self.name(comparison.annotator, position, "annotator"),
            "source": self.text(comparison.source, position, "source"),
            "video_path_a": paths[0],
            "video_path_b": paths[1],
            "generator_a": models[0],
            "generator_b": models[1],
            **comparison.more,
        }

    def _texts(self, values: tuple[Any, Any], position: int, field: str) -> list[str]:
        return [self.text(value, position, f"{field}_{side}") for value, side in zip(values, "ab", strict=True)]


Comparisons = Iterator[tuple[int, Comparison]]
"""Comparisons, with the position of their row among readable rows."""


class Format(NamedTuple):
    """A format of comparisons.

    Attributes:
        read: returns the comparisons.
        labels: label in the file -> ``a``, ``b`` or ``tie``; None if undocumented, so that users must define them.
        columns: groups of columns by which the format is recognised: a file has one of each.
        embedded: columns that can contain clips as bytes, each with the column of their names (or empty).
        entries: reads a file that is not a table.
    """

    read: Callable[[Source], Comparisons]
    labels: Mapping[str, str] | None = None
    columns: tuple[tuple[str, ...], ...] = ()
    embedded: tuple[tuple[str, str], ...] = ()
    entries: Callable[[Path], Entries] | None = None


def file_identifier(prompt: str, path: str) -> str:
    """Return the identifier of a clip from its prompt and path."""
    return video_id(prompt_id(prompt), 0, same_path(path))
