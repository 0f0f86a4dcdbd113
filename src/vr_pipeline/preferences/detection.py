"""Detect the format of a file of preferences from its content."""

from pathlib import Path

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.formats import FORMATS
from vr_pipeline.preferences.journal import is_journal
from vr_pipeline.preferences.winners import LOSERS, WINNERS
from vr_pipeline.storage.tables import read_entries


def detect_format(path: Path) -> str:
    """Return the format of a file of preferences: a key of :data:`vr_pipeline.preferences.formats.FORMATS`.

    A folder contains two folders of clips, a file that starts with a study is an annotation journal, and other formats
    are recognised by their columns.

    Raises:
        InputError: the file cannot be read, or its columns fit no format or several.
    """
    if path.is_dir():
        return "folders"
    if is_journal(path):
        return "annotations"
    entries = read_entries(path)
    known = {
        name: {entries.find(*group) for group in format.columns} for name, format in FORMATS.items() if format.columns
    }
    complete = {name: found for name, found in known.items() if None not in found}
    # Prefer a format to one with a subset of its columns.
    fitting = [name for name, found in complete.items() if not any(found < other for other in complete.values())]
    if len(fitting) == 1:
        return fitting[0]
    columns = ", ".join(entries.columns[:20]) or "none"
    if fitting:
        raise InputError(
            f"the columns ({columns}) fit the formats {' and '.join(fitting)}",
            remedy=f"give --pairs-format {fitting[0]} or {fitting[1]}",
            file=path,
        )
    raise InputError(
        f"the columns ({columns}) fit no known format of pairs",
        remedy="give the columns prompt, winner and loser; or give the format with --pairs-format and other column "
        f"names with --column (a folder needs '{WINNERS}' and '{LOSERS}'; see docs/your_own_data.md)",
        file=path,
        row=entries.header_row,
    )
