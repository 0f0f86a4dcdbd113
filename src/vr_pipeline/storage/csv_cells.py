"""CSV files whose cells spreadsheets do not execute, and that are read back unchanged.

Spreadsheets interpret a cell that begins with ``= + - @`` (or a tab or a line end before them) as a formula. Such texts
are written with an apostrophe before them (OWASP, CSV Injection), and the file then has a last column ``escaped_with``,
so that the reader removes one apostrophe. Numbers are unchanged.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vr_pipeline.storage.atomic import replaced

if TYPE_CHECKING:
    import pandas as pd

MARKER: Final = "escaped_with"
_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")


def escape(text: str) -> str:
    """Return the text, with an apostrophe before it if a spreadsheet could interpret it as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unescape(text: str) -> str:
    """Undo :func:`escape`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def unescape_row(values: dict[str, str]) -> dict[str, str]:
    """Return a row as it was before it was written; rows that :func:`write_csv` did not escape are unchanged."""
    if values.get(MARKER) != "'":
        return values
    return {unescape(name): unescape(value) for name, value in values.items() if name != MARKER}


def write_csv(table: pd.DataFrame, path: Path, *, raw: bool = False) -> None:
    """Write a table without its index; after an error the old file remains.

    Args:
        raw: write all texts unchanged, even those that a spreadsheet would execute.
    """
    data = table if raw else _escaped(table)
    with replaced(path) as temporary:
        data.to_csv(temporary, index=False, lineterminator="\n")


def _escaped(table: pd.DataFrame) -> pd.DataFrame:
    def safe(value: Any) -> Any:
        return escape(value) if isinstance(value, str) else value

    result = table.copy()
    changed = False
    for column in result.columns:
        if result[column].dtype == object or str(result[column].dtype) in ("str", "string", "category"):
            cells = [safe(value) for value in result[column]]
            changed |= any(isinstance(value, str) and _FORMULA.match(value) for value in result[column])
            result[column] = cells
    result.columns = [safe(column) for column in result.columns]
    changed |= list(result.columns) != list(table.columns)
    return result.assign(**{MARKER: "'"}) if changed else table
