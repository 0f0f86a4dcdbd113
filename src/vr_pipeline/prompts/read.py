"""Read prompts from a file, with source and probability of unsafe content.

Bad rows are returned with row number and problem. An empty file, a missing column or another encoding is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import IMAGE
from vr_pipeline.storage.tables import BadBytes, Entries, read_entries
from vr_pipeline.storage.values import as_number, as_text, is_missing

if TYPE_CHECKING:
    import pandas as pd

PROMPT_COLUMNS: Final = ("prompt", "text", "caption")
"""Possible names of the prompt column, in order of preference and in any case."""
VIDPROM_UNSAFE_COLUMNS: Final = ("toxicity", "obscene", "identity_attack", "insult", "threat", "sexual_explicit")
"""Probabilities of unsafe content in the csv files of VidProM (Wang and Yang 2024, VidProM, section 3)."""
_COLUMNS: Final = ("row", "prompt", "source", "source_id", "unsafe_probability", "problem", IMAGE)


def read_prompts(
    path: str | Path,
    *,
    file_format: str | None = None,
    encoding: str = "utf-8",
    prompt_column: str | None = None,
    source_column: str = "source",
    on_bad_bytes: BadBytes = "auto",
    image_column: str = "image",
    image_of: Callable[[str], str] | None = None,
) -> pd.DataFrame:
    """Read a file of prompts.

    Args:
        path, file_format, encoding, on_bad_bytes: see :func:`vr_pipeline.storage.tables.read_entries`.
        prompt_column: the column or key of the prompts; None for one of :data:`PROMPT_COLUMNS`.
        source_column: the column of the source of a prompt. Without it, the source is the file name, or VidProM for
            its csv files, with the uuid as source_id.
        image_column: the column of the first frame of a prompt's clips; read with ``image_of``.
        image_of: from a value of this column to that of the table; raises ValueError for unusable images.

    Returns:
        one row per prompt, in file order: row (line number, int), prompt, source, source_id, unsafe_probability
        (float, NaN if unknown), problem (empty for good rows; bad rows have an empty prompt), and image with
        ``image_of``.

    Raises:
        InputError: the file is missing, empty, not text, or has no column of prompts or images, or no good row.
    """
    import pandas as pd

    path = Path(path)
    wanted = [*((prompt_column,) if prompt_column else PROMPT_COLUMNS), source_column, "uuid", *VIDPROM_UNSAFE_COLUMNS]
    wanted += [image_column] if image_of is not None else []
    entries = read_entries(path, file_format=file_format, encoding=encoding, on_bad_bytes=on_bad_bytes, wanted=wanted)
    if not entries.rows:
        raise InputError("the file has no prompts", remedy="add at least one prompt", file=path)
    if all(entry.problem for entry in entries.rows):
        rows = [(entry.row, "", "", "", math.nan, entry.problem, "") for entry in entries.rows]
    else:
        prompt = find_prompts(entries, prompt_column)
        source, identifier = entries.find(source_column), entries.find("uuid")
        unsafe = [name for name in map(entries.find, VIDPROM_UNSAFE_COLUMNS) if name is not None]
        pictured = "" if image_of is None else _find_images(entries, image_column)
        default = "VidProM" if identifier is not None and unsafe else path.name
        rows = []
        for entry in entries.rows:
            try:
                if entry.problem:
                    raise ValueError(entry.problem)
                values = entry.values
                text = _text(values.get(prompt), prompt)
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
                        ""
                        if image_of is None or pictured is None
                        else image_of(_text(values.get(pictured) or None, image_column)),
                    )
                )
            except ValueError as error:
                rows.append((entry.row, "", "", "", math.nan, str(error), ""))
    if all(row[-2] for row in rows):
        raise InputError(
            f"none of the {len(rows)} rows is usable; the first: {rows[0][-2]}",
            remedy="check the format and the encoding of the file",
            file=path,
            row=rows[0][0],
        )
    table = pd.DataFrame({name: list(values) for name, values in zip(_COLUMNS, zip(*rows, strict=True), strict=True)})
    return table if image_of is not None else table.drop(columns=IMAGE)


def find_prompts(entries: Entries, prompt_column: str | None = None) -> str:
    """Return the column of the prompts: the given one, or the first of :data:`PROMPT_COLUMNS`.

    Raises:
        InputError: the column is missing.
    """
    found = entries.find(prompt_column) if prompt_column else entries.find(*PROMPT_COLUMNS)
    if found is None:
        missing = prompt_column or PROMPT_COLUMNS[0]
        raise InputError(
            f"there is no column '{missing}'; the columns are {', '.join(map(repr, entries.columns)) or 'none'}",
            remedy="set prompt_column of raw_prompts in the catalog to the column of the prompts "
            "(kedro init-data: --prompt-column), or add it to the file",
            file=entries.path,
            row=entries.header_row,
            field=missing,
        )
    return found


def _find_images(entries: Entries, column: str) -> str:
    found = entries.find(column)
    if found is None:
        raise InputError(
            f"there is no column '{column}'; the columns are {', '.join(map(repr, entries.columns))}",
            remedy="set image_column of raw_prompts in the catalog to the column of the images, or remove "
            "image_folder there",
            file=entries.path,
            row=entries.header_row,
            field=column,
        )
    return found


def _text(value: Any, column: str) -> str:
    if is_missing(value):
        raise ValueError(f"'{column}' has no value")
    if not isinstance(value, str):
        raise ValueError(f"'{column}' is not text but {type(value).__name__}")
    return value


def _largest(values: list[Any]) -> float:
    """Return the largest of probabilities; NaN if all are missing."""
    try:
        known = [number for number in map(as_number, values) if not math.isnan(number)]
    except ValueError as error:
        raise ValueError(f"a probability of unsafe content is not a number: {error}") from None
    if any(not 0 <= number <= 1 for number in known):
        raise ValueError(f"a probability of unsafe content is not between 0 and 1: {known}")
    return max(known, default=math.nan)
