"""Reads tables of entries that others wrote, whatever of the usual formats they are in."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from vr_pipeline.errors import InputError


def read_entries(path: Path) -> tuple[pd.DataFrame, int]:
    """The entries of a csv, tsv, json, jsonl or parquet file, and the number of the first one as messages count rows.

    Cells of text files stay text, empty ones are empty texts. Raises :class:`InputError` where the file cannot be read.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError("the file does not exist", remedy="Correct the path in the catalog", file=path)
    try:
        if suffix in (".csv", ".tsv"):
            separator = "\t" if suffix == ".tsv" else ","
            return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False), 2
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
    except (ValueError, UnicodeDecodeError, OSError, AttributeError, TypeError) as error:
        raise InputError(
            f"the file cannot be read ({type(error).__name__}: {str(error)[:200]})",
            remedy="Check that it is complete and that its suffix says what it is",
            file=path,
        ) from error
    raise InputError(f"files of type '{suffix}' are not read", remedy="Use csv, tsv, json, jsonl or parquet", file=path)
