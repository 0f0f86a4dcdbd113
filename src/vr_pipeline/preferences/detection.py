"""Which format a file of preferences has, known by what is in it."""

from __future__ import annotations

import json
from pathlib import Path

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.formats import FORMATS
from vr_pipeline.preferences.winners import LOSERS, WINNERS
from vr_pipeline.storage.tables import read_entries


def detect_format(path: Path) -> str:
    """Return the format of a file of preferences: a key of :data:`vr_pipeline.preferences.formats.FORMATS`.

    A folder is two folders of clips; a file that begins with a study is a journal of annotations; a table has the
    format whose columns it has.

    Raises:
        InputError: the file cannot be read, or its columns are those of no format, or of several.
    """
    if path.is_dir():
        return "folders"
    if path.suffix.lower() == ".jsonl" and _is_journal(path):
        return "annotations"
    entries = read_entries(path)
    known = {
        name: {entries.find(*group) for group in format.columns} for name, format in FORMATS.items() if format.columns
    }
    complete = {name: found for name, found in known.items() if None not in found}
    # A format whose columns are some of another's is the less likely one.
    fitting = [name for name, found in complete.items() if not any(found < other for other in complete.values())]
    if len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(entries.columns[:20]) or "none"
    if fitting:
        raise InputError(
            f"the columns ({columns}) fit the formats {' and '.join(fitting)}",
            remedy=f"say which it is by --pairs-format {fitting[0]} or {fitting[1]}",
            file=path,
        )
    raise InputError(
        f"the columns ({columns}) are those of no known format of pairs",
        remedy="give the columns prompt, winner and loser; or name the format by --pairs-format, and columns of other "
        f"names by --column (a folder has '{WINNERS}' and '{LOSERS}'; docs/your_own_data.md lists all)",
        file=path,
        row=entries.header_row,
    )


def _is_journal(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and first.get("event") == "study"
