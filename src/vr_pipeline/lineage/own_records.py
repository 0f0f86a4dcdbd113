"""Which records were written here: a record in a store that others can write to says nothing about who wrote it.

A line with a hash for every run goes to a file of the project that never leaves it. What a repetition would execute
(commit, changes, parameters) counts as one's own if its hash is there.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vr_pipeline.lineage.tracking import records_folder

logger = logging.getLogger(__name__)

FILE = Path("logs") / "records.sha256"


def fingerprint(record: Mapping[str, Any]) -> str:
    """SHA-256 of all that a repetition of the run would execute or set."""
    code = record["code"]
    executed = [code["commit"], code.get("patch_sha256", ""), record["environment"], record["parameters"]]
    return hashlib.sha256(json.dumps(executed, sort_keys=True).encode()).hexdigest()


def remember(project: Path, mark: str) -> None:
    """Note that a record was written here."""
    file = records_folder(project) / FILE
    if is_own(project, mark):
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="ascii") as stream:
            stream.write(f"{mark}\n")
    except OSError as error:
        logger.debug("The record is not noted as written here: %s", error)


def is_own(project: Path, mark: str) -> bool:
    """Whether the record was written here."""
    try:
        return mark in (records_folder(project) / FILE).read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
