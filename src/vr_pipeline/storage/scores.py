"""Scores of clips in a user's table."""

import math
from collections.abc import Sequence
from pathlib import Path

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import same_name
from vr_pipeline.storage.tables import read_entries
from vr_pipeline.storage.values import as_number, as_text


def read_scores(
    path: Path,
    keys: Sequence[str] = ("video_id",),
    value: str = "score",
    *,
    low: float = -math.inf,
    high: float = math.inf,
) -> dict[tuple[str, ...], float]:
    """Read one number per row, by the columns that identify it.

    Args:
        path: a table of any usual type (:func:`vr_pipeline.storage.tables.read_entries`).
        keys: columns that together identify a number.
        value: column of the number.
        low, high: its range.

    Raises:
        InputError: the file is missing, lacks a column, or has a row without a name, without a number in the range, or
            with a repeated name.
    """
    if not path.is_file():
        raise InputError("there is no table of scores", remedy="Give its path", file=path)
    entries = read_entries(path)
    found = {column: entries.find(column) for column in (*keys, value)}
    for column, name in found.items():
        if name is None:
            remedy = f"Give the columns {', '.join(found)}"
            raise InputError("a column is missing", remedy=remedy, file=path, field=column)
    problems = entries.problems()
    scores: dict[tuple[str, ...], float] = {}
    for entry in entries.rows:
        if entry.problem:
            continue
        *names, given = (entry.values.get(str(name)) for name in found.values())
        try:
            key, score = tuple(same_name(as_text(name)) for name in names), as_number(given)
        except ValueError:
            key, score = (), math.nan
        if all(key) and key and key not in scores and low <= score <= high:
            scores[key] = score
            continue
        problem = f"{', '.join(repr(name) for name in names)} has the {value} '{given}'"
        ends = f" from {low:g} to {high:g}" if math.isfinite(low) else ""
        remedy = f"Give each once, with a number{ends}"
        problems.append(InputError(problem, remedy=remedy, file=path, row=entry.row, field=value))
    for one in problems:
        raise one
    return scores
