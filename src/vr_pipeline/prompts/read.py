"""Prompts of a file: which column holds them, where they are from, and how unsafe they are said to be.

A bad row does not stop the rest: it comes back with its row number and what is wrong with it. What makes the whole
file doubtful does stop: an empty file, a missing column, another encoding.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vr_pipeline.errors import InputError
from vr_pipeline.storage.tables import BadBytes, Entries, read_entries
from vr_pipeline.storage.values import as_number, as_text, is_missing

if TYPE_CHECKING:
    import pandas as pd

PROMPT_COLUMNS: Final = ("prompt", "text", "caption")
"""Names under which a prompt column is found, in this order and in any case."""
VIDPROM_UNSAFE_COLUMNS: Final = ("toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit")
"""Probabilities of unsafe content in the csv files of VidProM (Wang and Yang 2024, VidProM, section 3)."""
_COLUMNS: Final = ("row", "prompt", "source", "source_id", "unsafe_probability", "problem")


def read_prompts(
    path: str | Path,
    *,
    file_format: str | None = None,
    encoding: str = "utf-8",
    prompt_column: str | None = None,
    source_column: str = "source",
    on_bad_bytes: BadBytes = "auto",
) -> pd.DataFrame:
    """Read a file of prompts.

    Args:
        path, file_format, encoding, on_bad_bytes: see :func:`vr_pipeline.storage.tables.read_entries`.
        prompt_column: the column or key with the prompts; None finds one of :data:`PROMPT_COLUMNS`.
        source_column: the column that says where a prompt is from. Where it is absent, the source is the file's name,
            or for the csv files of VidProM the word VidProM, with the uuid as source_id.

    Returns:
        one row a prompt, in file order: row (line number, int), prompt, source, source_id, unsafe_probability
        (float, NaN where unknown) and problem (empty for good rows; bad rows have an empty prompt).

    Raises:
        InputError: if the file is missing, empty, has no prompt column, is not text, or has no good row at all.
    """
    import pandas as pd

    path = Path(path)
    wanted = [*((prompt_column,) if prompt_column else PROMPT_COLUMNS), source_column, "uuid", *VIDPROM_UNSAFE_COLUMNS]
    entries = read_entries(path, file_format=file_format, encoding=encoding, on_bad_bytes=on_bad_bytes, wanted=wanted)
    if not entries.rows:
        raise InputError("the file holds no prompts", remedy="put at least one prompt into it", file=path)
    if all(entry.problem for entry in entries.rows):
        rows = [(entry.row, "", "", "", math.nan, entry.problem) for entry in entries.rows]
    else:
        prompt = find_prompts(entries, prompt_column)
        source, identifier = entries.find(source_column), entries.find("uuid")
        unsafe = [name for name in map(entries.find, VIDPROM_UNSAFE_COLUMNS) if name is not None]
        default = "VidProM" if identifier is not None and unsafe else path.name
        rows = []
        for entry in entries.rows:
            try:
                if entry.problem:
                    raise ValueError(entry.problem)
                values = entry.values
                text = _prompt(values.get(prompt), prompt)
                origin = as_text(values.get(source)) if source else ""
                name = as_text(values.get(identifier)) if identifier else ""
                rows.append(
                    (
                        entry.row,
                        text,
                        origin or default,
                        name,
                        _largest([values.get(one) for one in unsafe]) if unsafe else math.nan,
                        "",
                    )
                )
            except ValueError as error:
                rows.append((entry.row, "", "", "", math.nan, str(error)))
    if all(row[-1] for row in rows):
        raise InputError(
            f"none of the {len(rows)} rows can be used; the first: {rows[0][-1]}",
            remedy="check the format and the encoding of the file",
            file=path,
            row=rows[0][0],
        )
    return pd.DataFrame({name: list(values) for name, values in zip(_COLUMNS, zip(*rows, strict=True), strict=True)})


def find_prompts(entries: Entries, prompt_column: str | None = None) -> str:
    """Return the column with the prompts: the named one, or the first of :data:`PROMPT_COLUMNS`.

    Raises:
        InputError: there is none.
    """
    found = entries.find(prompt_column) if prompt_column else entries.find(*PROMPT_COLUMNS)
    if found is None:
        missing = prompt_column or PROMPT_COLUMNS[0]
        raise InputError(
            f"there is no column '{missing}'; the columns are {', '.join(map(repr, entries.columns)) or 'none'}",
            remedy="name the column that holds the prompts as prompt_column of raw_prompts in the catalog "
            "(kedro init-data: --prompt-column), or add it to the file",
            file=entries.path,
            row=entries.header_row,
            field=missing,
        )
    return found


def _prompt(value: Any, column: str) -> str:
    if is_missing(value):
        raise ValueError(f"there is no value for '{column}'")
    if not isinstance(value, str):
        raise ValueError(f"'{column}' is not text but {type(value).__name__}")
    return value


def _largest(values: list[Any]) -> float:
    """Return the largest of probabilities of which some may be missing; NaN if all are."""
    try:
        known = [number for number in map(as_number, values) if not math.isnan(number)]
    except ValueError as error:
        raise ValueError(f"a probability of unsafe content is not a number: {error}") from None
    if any(not 0 <= number <= 1 for number in known):
        raise ValueError(f"a probability of unsafe content is not from 0 to 1: {known}")
    return max(known, default=math.nan)
