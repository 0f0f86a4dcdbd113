"""Reading prompt files as people have them: text, CSV, TSV, JSON lines and parquet.

A bad row does not stop the rest: it comes back with its line number and what is wrong with it. What makes the whole
file doubtful does stop: an empty file, a missing column, bytes that are not text.
"""

from __future__ import annotations

import bisect
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PROMPT_COLUMNS: Final = ("prompt", "text", "caption")
"""Names under which a prompt column is found, in this order and in any case."""
VIDPROM_UNSAFE_COLUMNS: Final = ("toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit")
"""Probabilities of unsafe content in the csv files of VidProM (Wang and Yang 2024, VidProM, section 3)."""
FORMATS: Final = {
    ".txt": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
BadBytes = Literal["stop", "quarantine"]


@dataclass(frozen=True)
class PromptRow:
    """One row of a file. ``problem`` is empty for a good row; ``row`` counts lines from 1, a header included."""

    row: int
    prompt: str = ""
    source: str = ""
    source_id: str = ""
    unsafe_probability: float = float("nan")
    problem: str = ""


def read_prompts(
    path: str | Path,
    *,
    file_format: str | None = None,
    encoding: str = "utf-8",
    prompt_column: str | None = None,
    source_column: str = "source",
    on_bad_bytes: BadBytes = "stop",
) -> pd.DataFrame:
    """Read a file of prompts.

    Args:
        path: the file.
        file_format: txt (a prompt a line), csv, tsv, jsonl or parquet; None decides by the file's ending.
        encoding: of text formats. A byte order mark overrides it.
        prompt_column: the column or key with the prompts; None finds one of :data:`PROMPT_COLUMNS`.
        source_column: the column that says where a prompt is from. Where it is absent, the source is the file's name,
            or for the csv files of VidProM the word VidProM, with the uuid as source_id.
        on_bad_bytes: what to do with bytes that are not text in the encoding and with NUL bytes: stop, or quarantine
            the lines that hold them.

    Returns:
        one row a prompt, in file order: row (line number, int), prompt, source, source_id, unsafe_probability
        (float, NaN where unknown) and problem (empty for good rows; bad rows have an empty prompt).

    Raises:
        InputError: if the file is missing, empty, has no prompt column, is not text, or has no good row at all.
    """
    import pandas as pd

    path = Path(path)
    if not path.is_file():
        raise InputError("there is no such file", remedy="check the path of raw_prompts in the catalog", file=path)
    kind = file_format or FORMATS.get(path.suffix.lower())
    if kind not in set(FORMATS.values()):
        raise InputError(
            f"the format of a file that ends in '{path.suffix}' is not known",
            remedy=f"set file_format in the catalog to one of {', '.join(sorted(set(FORMATS.values())))}",
            file=path,
        )
    if path.stat().st_size == 0:
        raise InputError("the file is empty", remedy="put at least one prompt into it", file=path)
    columns = _Columns(path, prompt_column, source_column)
    if kind == "parquet":
        rows = list(_parquet_rows(path, columns))
    else:
        text, problems = _decode(path, encoding, on_bad_bytes)
        readers = {"txt": _text_rows, "csv": _table_rows, "tsv": _table_rows, "jsonl": _json_rows}
        rows = list(readers[kind](text, columns, "\t" if kind == "tsv" else ","))
        rows = _mark_bad_lines(rows, problems)
    if not rows:
        raise InputError("the file holds no prompts", remedy="put at least one prompt into it", file=path)
    if all(row.problem for row in rows):
        raise InputError(
            f"none of the {len(rows)} rows can be used; the first: {rows[0].problem}",
            remedy="check the format and the encoding of the file",
            file=path,
            row=rows[0].row,
        )
    return pd.DataFrame(
        {
            name: [getattr(row, name) for row in rows]
            for name in ("row", "prompt", "source", "source_id", "unsafe_probability", "problem")
        }
    )


class _Columns:
    """Which columns of a table hold what."""

    def __init__(self, path: Path, prompt_column: str | None, source_column: str) -> None:
        self.path, self.wanted, self.source = path, prompt_column, source_column
        self.default_source = path.name
        self.prompt = prompt_column or PROMPT_COLUMNS[0]
        self.identifier: str | None = None
        self.unsafe: list[str] = []

    def resolve(self, names: list[str], *, row: int = 1) -> None:
        """Find the columns by name; VidProM's are known."""
        if self.wanted is not None:
            found = self.wanted if self.wanted in names else None
        else:
            lowered = {name.strip().lower(): name for name in reversed(names)}
            found = next((lowered[name] for name in PROMPT_COLUMNS if name in lowered), None)
        if found is None:
            from vr_pipeline.entries import refuse_semicolons

            missing = self.wanted or PROMPT_COLUMNS[0]
            refuse_semicolons(names, self.path, row=row)
            raise InputError(
                f"there is no column '{missing}'; the columns are {', '.join(map(repr, names)) or 'none'}",
                remedy="name the column that holds the prompts as prompt_column of raw_prompts in the catalog "
                "(kedro init-data: --prompt-column), or add it to the file",
                file=self.path,
                row=row,
                field=missing,
            )
        self.prompt = found
        self.unsafe = [name for name in VIDPROM_UNSAFE_COLUMNS if name in names]
        if "uuid" in names:
            self.identifier = "uuid"
            if self.unsafe:
                self.default_source = "VidProM"

    def row(self, number: int, values: dict[str, Any]) -> PromptRow:
        """One row from its values by column, or its problem."""
        prompt = values.get(self.prompt)
        if prompt is None:
            return PromptRow(number, problem=f"there is no value for '{self.prompt}'")
        if not isinstance(prompt, str):
            return PromptRow(number, problem=f"'{self.prompt}' is not text but {type(prompt).__name__}")
        try:
            unsafe = [float(values[name]) for name in self.unsafe if values.get(name) not in (None, "")]
        except (TypeError, ValueError):
            return PromptRow(number, problem="a probability of unsafe content is not a number")
        source = values.get(self.source)
        return PromptRow(
            number,
            prompt=prompt,
            source=str(source) if source not in (None, "") else self.default_source,
            source_id=str(values.get(self.identifier) or "") if self.identifier else "",
            unsafe_probability=max(unsafe, default=float("nan")),
        )


def _decode(path: Path, encoding: str, on_bad_bytes: BadBytes) -> tuple[str, dict[int, str]]:
    """Text of a file and the lines (from 1) with bytes that are not text."""
    data = path.read_bytes()
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            encoding = name
    problems: dict[int, str] = {}
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{data[error.start]:02x} at position {error.start} is not {encoding}"
        if on_bad_bytes == "stop":
            raise InputError(
                problem,
                remedy="save the file as UTF-8, name its encoding in the catalog, or set on_bad_bytes: quarantine "
                "there to leave such lines out",
                file=path,
                row=line,
                field="prompt",
            ) from error
        # Surrogate escapes mark the bad bytes and leave the line structure as it is.
        text = data.decode(encoding, "surrogateescape")
        for number, content in enumerate(text.split("\n"), start=1):
            if any("\udc80" <= character <= "\udcff" for character in content):
                problems[number] = f"the line has bytes that are not {encoding}"
    except LookupError as error:
        raise InputError(
            f"the encoding '{encoding}' is not known", remedy="use a name such as utf-8 or latin-1", file=path
        ) from error
    if "\0" in text:
        if on_bad_bytes == "stop":
            raise InputError(
                "there is a NUL byte in the text",
                remedy="remove it (the file may be UTF-16 or no text at all), or set on_bad_bytes: quarantine in the "
                "catalog to leave such lines out",
                file=path,
                row=text.count("\n", 0, text.index("\0")) + 1,
                field="prompt",
            )
        for number, content in enumerate(text.split("\n"), start=1):
            if "\0" in content:
                problems[number] = "the line has a NUL byte"
    return text, problems


def _mark_bad_lines(rows: list[PromptRow], problems: dict[int, str]) -> list[PromptRow]:
    """Quarantine the rows that hold a bad line; a quoted field may make a row several lines long."""
    if not problems:
        return rows
    starts = [row.row for row in rows]
    marked = list(rows)
    for line, problem in problems.items():
        position = bisect.bisect_right(starts, line) - 1
        if position >= 0:
            marked[position] = PromptRow(starts[position], problem=problem)
    return marked


def _text_rows(text: str, columns: _Columns, _: str) -> Iterator[PromptRow]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield PromptRow(number, prompt=line.rstrip("\r"), source=columns.default_source)


def _table_rows(text: str, columns: _Columns, delimiter: str) -> Iterator[PromptRow]:
    """Rows of a table with a header. A row's number is the line it begins on."""
    # A field may be as long as the file; the module's limit of 128 KiB guards against nothing here.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise InputError(
                    "a quotation mark that opens here is never closed, so the rest of the file cannot be read",
                    remedy="close it, or double it if it belongs to the text",
                    file=columns.path,
                    row=number,
                ) from error
            yield PromptRow(number, problem=f"the row cannot be parsed: {error}")
            continue
        if not fields:
            continue
        if header is None:
            header = [name.strip() for name in fields]
            columns.resolve(header, row=number)
        elif len(fields) != len(header):
            yield PromptRow(number, problem=f"the row has {len(fields)} fields, the header {len(header)}")
        else:
            yield columns.row(number, dict(zip(header, fields, strict=True)))
    if header is None:
        raise InputError(
            "the file has no header", remedy="put the column names into the first row", file=columns.path, row=1
        )


def _json_rows(text: str, columns: _Columns, _: str) -> Iterator[PromptRow]:
    """Lines that are objects with a prompt key, or just strings. The first object decides on the keys."""
    resolved = False
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            yield PromptRow(number, problem=f"the line is not JSON: {error.msg} at column {error.colno}")
            continue
        if isinstance(value, str):
            yield PromptRow(number, prompt=value, source=columns.default_source)
        elif isinstance(value, dict):
            if not resolved:
                columns.resolve([str(name) for name in value], row=number)
                resolved = True
            yield columns.row(number, value)
        else:
            yield PromptRow(number, problem=f"the line is neither an object nor a string but {type(value).__name__}")


def _parquet_rows(path: Path, columns: _Columns) -> Iterator[PromptRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        parquet = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"the file is not parquet: {error}", remedy="set file_format in the catalog to what it is", file=path
        ) from error
    columns.resolve(list(parquet.schema_arrow.names), row=0)
    wanted = [columns.prompt, columns.source, columns.identifier, *columns.unsafe]
    names = [name for name in dict.fromkeys(wanted) if name in parquet.schema_arrow.names]
    number = 0
    for batch in parquet.iter_batches(columns=names):
        for values in batch.to_pylist():
            number += 1
            row = columns.row(number, values)
            # Text formats are checked for NUL bytes as a whole; a parquet file holds each value apart.
            yield PromptRow(number, problem="the prompt has a NUL byte") if "\0" in row.prompt else row
