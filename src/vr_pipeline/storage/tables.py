"""The one reader of users' tables: prompts, preferences, annotations, clips.

Values are unchanged: cells of text files are text, whole numbers keep all their digits, nothing is interpreted as
missing. An unreadable row is returned with its problem; the others are read. ``docs/file_formats.md`` lists the
accepted formats.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from vr_pipeline.errors import InputError
from vr_pipeline.storage.csv_cells import MARKER, unescape, unescape_row
from vr_pipeline.storage.json_rows import LINE_END, TEXT_COLUMN, Entry, json_rows

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

FORMATS: Final = {
    ".txt": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
BadBytes = Literal["auto", "stop", "quarantine"]

_MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_OPEN_QUOTES = 100
_MOST_BAD = 0.1


@dataclass(frozen=True)
class Entries:
    """The content of a file: its columns as written, in order, and its rows."""

    path: Path
    columns: tuple[str, ...]
    rows: list[Entry]
    header_row: int | None = None

    def find(self, *names: str) -> str | None:
        """Return the column of the first possible name, as written or ignoring case and outer spaces; or None.

        Raises:
            InputError: the file has two columns of that name.
        """
        for name in names:
            exact = [column for column in self.columns if column == name]
            for found in (exact, [column for column in self.columns if _plain(column) == _plain(name)]):
                if len(found) > 1:
                    raise InputError(
                        f"there are {len(found)} columns '{name}'",
                        remedy="rename or remove all but one",
                        file=self.path,
                        row=self.header_row,
                        field=name,
                    )
                if found:
                    return found[0]
        return None

    def problems(self) -> list[InputError]:
        """Return the problems of unreadable rows."""
        bad = [entry for entry in self.rows if entry.problem]
        remedy = "correct the row, or remove it"
        return [InputError(entry.problem, remedy=remedy, file=self.path, row=entry.row) for entry in bad]

    def table(self) -> pd.DataFrame:
        """Return the good rows with unchanged values (None for missing ones); the index has their row numbers."""
        import pandas as pd

        good = [entry for entry in self.rows if not entry.problem]
        columns = dict.fromkeys(self.columns)
        return pd.DataFrame(
            {name: pd.Series([entry.values.get(name) for entry in good], dtype=object) for name in columns},
        ).set_axis([entry.row for entry in good])


def read_entries(
    path: Path,
    *,
    file_format: str | None = None,
    encoding: str = "utf-8",
    on_bad_bytes: BadBytes = "auto",
    wanted: Collection[str] | None = None,
) -> Entries:
    """Read a file, which may be compressed by gzip.

    Args:
        file_format: a value of :data:`FORMATS`; None for that of the ending.
        encoding: of text files without a byte order mark.
        on_bad_bytes: bytes that are not text in the encoding: ``stop``; ``quarantine`` their rows; ``auto`` stops
            unless more non-ASCII lines are good than bad, which shows that the file has this encoding.
        wanted: columns to read of a parquet file, in any case; None: all.

    Raises:
        InputError: the file is missing or empty, or cannot be read as a whole.
    """
    if not path.exists():
        raise InputError("there is no such file", remedy="correct the path in the catalog", file=path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    ending = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    kind = file_format or FORMATS.get(ending)
    if kind is None or kind not in FORMATS.values():
        known = ", ".join(sorted(set(FORMATS.values())))
        raise InputError(
            f"files of type '{file_format or ending}' are not read",
            remedy=f"save it as one of {known}, or set file_format in the catalog to one of them",
            file=path,
        )
    if not path.is_file():
        raise InputError("this is no file", remedy="name a file of the folder", file=path)
    if path.stat().st_size == 0:
        raise InputError("the file is empty", remedy="put at least one row into it", file=path)
    if kind == "parquet":
        return _parquet(path, wanted)
    text, encoding = _text_of(path, encoding, on_bad_bytes)
    readers = {"txt": _lines, "csv": _separated, "tsv": _separated, "json": _json, "jsonl": _json}
    columns, rows, header_row = readers[kind](text, path, kind)
    return Entries(path, tuple(columns), [_checked(entry, encoding) for entry in rows], header_row)


def bad_rows(problems: list[InputError]) -> set[int]:
    """Return the rows of problems."""
    return {int(problem.row) for problem in problems if problem.row is not None}


def are_few(problems: list[InputError], total: int) -> bool:
    """Return whether a file of ``total`` rows is read without the bad ones, by the rule of :func:`left_out`."""
    count = len(bad_rows(problems))
    return all(problem.row is not None for problem in problems) and count < total and count <= max(1, _MOST_BAD * total)


def left_out(problems: list[InputError], total: int, *, what: str) -> set[int]:
    """Return the rows that are left out because of their problems, with a warning.

    Raises:
        InputError: there is a problem of the whole file; or all rows are bad, or more than one and more than a tenth,
            which shows that the file has another format.
    """
    if not problems:
        return set()
    rows, first = bad_rows(problems), problems[0]
    if not are_few(problems, total):
        more = f" ({len(rows)} of {total} rows cannot be used)" if len(rows) > 1 else ""
        raise InputError(first.problem + more, remedy=first.remedy, file=first.file, row=first.row, field=first.field)
    logger.warning("%d of %d %s are left out, the first: %s", len(rows), total, what, first)
    return rows


def _plain(name: str) -> str:
    return name.strip().casefold()


def _checked(entry: Entry, encoding: str) -> Entry:
    """Return a row with a problem if one of its texts cannot be stored."""
    for name, value in entry.values.items():
        if not isinstance(value, str) or value.isprintable():  # neither NUL nor a surrogate is
            continue
        if "\0" in value:
            return Entry(entry.row, {}, f"there is a NUL byte in '{name}'")
        found = _SURROGATE.search(value)
        if found:
            escaped = "\udc80" <= found.group() <= "\udcff"
            what = f"bytes that are not {encoding}" if escaped else "half a surrogate pair, which is no character"
            return Entry(entry.row, {}, f"'{name}' has {what}")
    return entry


def _text_of(path: Path, encoding: str, on_bad_bytes: BadBytes) -> tuple[str, str]:
    """Return the text of a file, and its encoding. Bytes to quarantine become lone surrogates."""
    try:
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise InputError(f"the file cannot be read: {error}", remedy="check that it is complete", file=path) from error
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    encoding = marked or _wide(data[:4096]) or encoding
    try:
        return data.decode(encoding).removeprefix("\ufeff"), encoding
    except LookupError as error:
        raise InputError(
            f"the encoding '{encoding}' is not known", remedy="use a name such as utf-8 or cp1252", file=path
        ) from error
    except UnicodeDecodeError as error:
        start, reason = error.start, error.reason
    text = ""
    if not encoding.startswith(("utf-16", "utf-32")):
        text = data.decode(encoding, "surrogateescape").removeprefix("\ufeff")
        beyond = [line for line in LINE_END.split(text) if not line.isascii()]
        bad = sum(bool(_SURROGATE.search(line)) for line in beyond)
        if on_bad_bytes == "quarantine" or (on_bad_bytes == "auto" and 2 * bad < len(beyond)):
            return text, encoding
    raise InputError(
        f"byte 0x{data[start]:02x} at position {start} is not {encoding} ({reason})",
        remedy="save the file as UTF-8, or name its encoding (Windows programs in western Europe write cp1252) as "
        "encoding in the catalog; on_bad_bytes: quarantine there leaves such rows out",
        file=path,
        row=data.count(b"\n", 0, start) + 1,
    )


def _wide(head: bytes) -> str | None:
    """Return the encoding of UTF-16 without a byte order mark: every second byte of mostly western text is zero."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) < 12 or max(even, odd) < max(0.2 * len(head), 8 * min(even, odd)):
        return None
    return "utf-16-be" if even > odd else "utf-16-le"


_Read = tuple[list[str], list[Entry], int | None]


def _lines(text: str, path: Path, kind: str) -> _Read:
    lines = enumerate(LINE_END.split(text), start=1)
    return [TEXT_COLUMN], [Entry(number, {TEXT_COLUMN: line}) for number, line in lines if line.strip()], 1


def _separated(text: str, path: Path, kind: str) -> _Read:
    """Return rows of a table with a header; the separator is the one that gives the header most columns."""
    # A field may be as long as the file, above the module's limit of 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    lines = io.StringIO(text, newline="").readlines()
    separators = "\t,;|" if kind == "tsv" else ",;\t|"
    start = 0
    if lines and (named := re.fullmatch(r"sep=(.)", lines[0].strip("\r\n"))):  # as Excel writes it
        start, separators = 1, named[1]
    heads = [(next(_records(lines, start, separator), None), separator) for separator in separators]
    header, separator = max(heads, key=lambda head: len(head[0][1]) if head[0] else -1)
    if header is None or header[2]:
        raise InputError("the file has no header", remedy="put the column names into the first row", file=path, row=1)
    names = [name.strip() for name in header[1]]
    escaped = MARKER in names
    rows = []
    for line, fields, problem in _records(lines, start, separator):
        if line == header[0]:
            continue
        plain = lines[line - 1].rstrip("\r\n").split(separator)
        if problem and separator == "\t" and len(plain) == len(names):  # whose writers often know no quotation marks
            fields, problem = plain, ""
        if not problem and len(fields) != len(names):
            problem = f"the row has {len(fields)} fields, the header {len(names)}"
        values = {} if problem else {name: field for name, field in zip(names, fields, strict=True) if name}
        rows.append(Entry(line, unescape_row(values) if escaped else values, problem))
    columns = [unescape(name) if escaped else name for name in names if name and name != MARKER]
    return columns, rows, header[0]


def _records(lines: list[str], start: int, separator: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield first line (from 1), fields and problem of each record that is not empty."""
    open_quotes = 0
    reader = csv.reader(itertools.islice(lines, start, None), delimiter=separator, strict=True)
    while True:
        line = start + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"the row cannot be parsed: {error}"
            if "unexpected end of data" in str(error):
                problem = "a quotation mark that opens here is never closed"
            if start + reader.line_num > line and open_quotes < _MOST_OPEN_QUOTES:
                # An open quotation mark extends over several lines: only the first is lost, the next is read again.
                open_quotes += 1
                start = line
                reader = csv.reader(itertools.islice(lines, start, None), delimiter=separator, strict=True)
            yield line, [], problem
            continue
        if any(field.strip() for field in fields):
            yield line, fields, ""


def _json(text: str, path: Path, kind: str) -> _Read:
    rows = json_rows(text, path, lines=kind == "jsonl")
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    return columns, rows, rows[0].row if rows else None


def _parquet(path: Path, wanted: Collection[str] | None) -> Entries:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        columns = list(file.schema_arrow.names)
        plain = None if wanted is None else {_plain(name) for name in wanted}
        taken = [name for name in dict.fromkeys(columns) if plain is None or _plain(name) in plain]
        rows: list[Entry] = []
        for batch in file.iter_batches(columns=taken):
            try:
                rows += [Entry(len(rows) + at, values) for at, values in enumerate(batch.to_pylist(), start=1)]
            except (ValueError, OverflowError, pa.ArrowException):  # one value that Python cannot hold
                rows += [_parquet_row(batch, at, len(rows) + at + 1) for at in range(batch.num_rows)]
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"the file is not parquet, or damaged: {error}",
            remedy="restore it, or set file_format in the catalog to what it is",
            file=path,
        ) from error
    return Entries(path, tuple(columns), [_checked(entry, "utf-8") for entry in rows])


def _parquet_row(batch: Any, at: int, row: int) -> Entry:
    values = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values[name] = column[at].as_py()
        except (ValueError, OverflowError) as error:
            return Entry(row, {}, f"the value of '{name}' cannot be read: {error}")
    return Entry(row, values)
