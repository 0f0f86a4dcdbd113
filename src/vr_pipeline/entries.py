"""Reads tables of entries that others wrote, whatever of the usual formats they are in."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from vr_pipeline.errors import InputError

_ROWS_NAMED = 8
_FIRST_ROW = 2  # of a table with a header
_EVEN_UP = "Add or remove fields, or put texts that hold the separator between quotation marks"


def read_entries(path: Path, *, problems: list[InputError] | None = None) -> tuple[pd.DataFrame, int]:
    """The entries of a csv, tsv, json, jsonl or parquet file, and the number of the first one as messages count rows.

    Cells of text files stay text, empty ones are empty texts.

    Args:
        path: the file.
        problems: where given, rows of another length than the header are added here and left out of the table, whose
            index still counts them; otherwise they are refused.

    Raises:
        InputError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError("the file does not exist", remedy="Correct the path in the catalog", file=path)
    try:
        if suffix in (".csv", ".tsv"):
            return _read_separated(path, "\t" if suffix == ".tsv" else ",", problems), _FIRST_ROW
        if suffix == ".parquet":
            return pd.read_parquet(path), 1
        if suffix in (".jsonl", ".ndjson"):
            lines = path.read_text(encoding="utf-8").splitlines()
            return pd.DataFrame([json.loads(line) for line in lines if line.strip()]), 1
        if suffix == ".json":
            document = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(document, dict):  # identifier -> entry
                document = [{"item": key, **entry} for key, entry in document.items()]
            return pd.DataFrame(document), 1
    except InputError:
        raise
    except (ValueError, UnicodeDecodeError, OSError, AttributeError, TypeError) as error:
        raise InputError(
            f"the file cannot be read ({type(error).__name__}: {str(error)[:200]})",
            remedy="Check that it is complete and that its suffix says what it is",
            file=path,
        ) from error
    raise InputError(f"files of type '{suffix}' are not read", remedy="Use csv, tsv, json, jsonl or parquet", file=path)


def refuse_semicolons(header: Sequence[str], path: Path, *, row: int = 1) -> None:
    """Raises :class:`InputError` for a header of one column that is meant to be several."""
    if len(header) == 1 and ";" in header[0]:
        raise InputError(
            "the columns are separated by semicolons",
            remedy="Save the file with commas, or with tabs as .tsv",
            file=path,
            row=row,
        )


def _read_separated(path: Path, separator: str, problems: list[InputError] | None) -> pd.DataFrame:
    """A CSV or TSV file as text; rows of another length than the header are never shifted or cut."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"byte 0x{content[error.start]:02x} is no UTF-8 text",
            remedy="Save the file as UTF-8",
            file=path,
            row=content.count(b"\n", 0, error.start) + 1,
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    rows: list[list[str]] = []
    uneven: dict[int, int] = {}  # position -> line
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise InputError(
                f"the row cannot be parsed ({error})", remedy="Close or double its quotation marks", file=path, row=line
            ) from None
        if not fields:
            continue
        if header is None:
            header = [name.strip() for name in fields]
            continue
        rows.append(fields)
        if len(fields) != len(header):
            uneven[len(rows) - 1] = line
    if uneven and header is not None and problems is None:
        lines = list(uneven.values())
        more = f" and {len(lines) - _ROWS_NAMED} more" if len(lines) > _ROWS_NAMED else ""
        named = ", ".join(str(line) for line in lines[:_ROWS_NAMED]) + more
        raise InputError(
            f"{'rows' if len(lines) > 1 else 'row'} {named} {'have' if len(lines) > 1 else 'has'} another number of "
            f"fields than the header ({len(header)})",
            remedy=_EVEN_UP,
            file=path,
            row=lines[0],
        )
    refuse_semicolons(header or [], path)
    if problems is not None:
        problems += [
            InputError(
                f"the row has {len(rows[position])} fields, the header {len(header or [])}",
                remedy=_EVEN_UP,
                file=path,
                row=position + _FIRST_ROW,
            )
            for position in uneven
        ]
    good = [position for position in range(len(rows)) if position not in uneven]
    return pd.DataFrame([rows[position] for position in good], columns=header or [], index=good, dtype=str)
