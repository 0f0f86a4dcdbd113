"""Rows of JSON files in all common layouts."""

import bisect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from vr_pipeline.errors import InputError

TEXT_COLUMN: Final = "prompt"
"""The column of files with texts only: one text per line, or JSON strings."""
LINE_END = re.compile(r"\r\n|\n|\r")  # not those of str.splitlines: U+2028 and others are part of texts
_WRAPPERS: Final = ("data", "rows", "items", "entries", "examples", "records", "prompts", "preferences", "annotations")
_SPACE = re.compile(r"[ \t\r\n\x1e\ufeff]*")


class Entry(NamedTuple):
    """One row. ``problem`` is empty for a good one; a bad one has no values.

    ``row`` is the line on which it begins, or its number (from 1) in a JSON list or a parquet file.
    """

    row: int
    values: dict[str, Any]
    problem: str = ""


def json_rows(text: str, path: Path, *, lines: bool) -> list[Entry]:
    """Return rows of lines of JSON; of one JSON list or object, or several after each other, over any number of lines.

    Args:
        lines: by its ending, each line is a value.

    Raises:
        InputError: it is not JSON, not even line by line.
    """
    rows = list(_of_lines(text)) if lines else []
    if len(rows) < 2 or all(row.problem for row in rows):
        try:
            documents = _of_documents(text)
            rows = documents if len(documents) > len(rows) or all(row.problem for row in rows) else rows
        except (ValueError, RecursionError) as error:
            rows = rows or list(_of_lines(text))  # lines in a .json file, some of them broken
            if not lines and all(row.problem for row in rows):
                line = text.count("\n", 0, getattr(error, "pos", 0)) + 1
                remedy = "check that it is complete; a JSON checker shows the place"
                raise InputError(f"the file is not JSON: {error}", remedy=remedy, file=path, row=line) from None
    return rows


def _of_lines(text: str) -> Iterator[Entry]:
    for number, line in enumerate(LINE_END.split(text), start=1):
        try:
            values = [value for _, value in _values(line)]
        except json.JSONDecodeError as error:
            yield Entry(number, {}, f"the line is not JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:
            yield Entry(number, {}, f"the line is not JSON: {error}")
        else:
            yield from (_entry(number, value) for value in values)


def _of_documents(text: str) -> list[Entry]:
    values = list(_values(text))
    if len(values) != 1:
        starts = [match.end() for match in LINE_END.finditer(text)]
        return [_entry(bisect.bisect_right(starts, place) + 1, value) for place, value in values]
    document = values[0][1]
    if isinstance(document, dict):
        wrapped = [value for key, value in document.items() if key in _WRAPPERS and isinstance(value, list)]
        lengths = {len(value) if isinstance(value, list) else -1 for value in document.values()}
        if len(wrapped) == 1:
            document = wrapped[0]
        elif document and all(isinstance(value, dict) for value in document.values()):
            if all(key.isdecimal() for value in document.values() for key in value):  # column -> number -> value
                numbers = dict.fromkeys(key for value in document.values() for key in value)
                document = [{name: value.get(key) for name, value in document.items()} for key in numbers]
            else:  # identifier -> entry
                document = [{"item": key, **value} for key, value in document.items()]
        elif len(lengths) == 1 and lengths != {-1}:  # column -> values
            document = [dict(zip(document, row, strict=True)) for row in zip(*document.values(), strict=True)]
        else:
            document = [document]
    elif not isinstance(document, list):
        document = [document]
    return [_entry(number, value) for number, value in enumerate(document, start=1)]


def _entry(row: int, value: Any) -> Entry:
    if isinstance(value, dict):
        return Entry(row, value)
    if isinstance(value, str):
        return Entry(row, {TEXT_COLUMN: value})
    return Entry(row, {}, f"the entry is neither an object nor a text but {type(value).__name__}")


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """Yield consecutive JSON values with their positions."""
    place = _end_of(_SPACE, text, 0)
    while place < len(text):
        value, end = _DECODER.raw_decode(text, place)
        yield place, value
        place = _end_of(_SPACE, text, end)


def _end_of(pattern: re.Pattern[str], text: str, place: int) -> int:
    match = pattern.match(text, place)
    return match.end() if match else place


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' is there twice")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
