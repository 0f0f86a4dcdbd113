"""Rows of a training log, written during training for observers.

A training may take days, and its node saves the log when it ends. Rows are therefore also appended to a file, one line
of JSON each, which a watcher follows from another process or another machine with the same disk. Whoever starts the
run names the folder (:data:`FOLDER`) and the file (:func:`send_to`); where nobody did, nothing is written.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import time
from typing import Any

logger = logging.getLogger(__name__)

FOLDER = "VR_PIPELINE_LIVE_CURVES"
"""Environment variable with the folder of the run's files; handed on to the processes in which nodes run."""

TIME = "time"
"""Entry of a row that says when it was written, in milliseconds since 1970."""

_SUFFIX = ".jsonl"
_target: Path | None = None


def send_to(name: str | None) -> None:
    """Send later rows of this process to the log of this name; None: to none."""
    global _target
    folder = os.environ.get(FOLDER)
    _target = Path(folder) / f"{name}{_SUFFIX}" if folder and name else None


def write_row(row: Mapping[str, float]) -> None:
    """Append a row. Rows of one ``step`` are merged: later ones add values that earlier ones lacked."""
    global _target
    if _target is None:
        return
    line = json.dumps({TIME: int(time() * 1000), **row}) + "\n"
    try:
        with _target.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        logger.warning("Live curves are no longer updated (%s); training continues", error)
        _target = None


def checkpoint_row(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a row of a validation table: rewards and their error, by their curves' names."""
    values = {
        name: value for name, value in row.items() if name in ("reward", "se") or name.startswith(("dim_", "hold_out_"))
    }
    return {"step": row["step"], **{f"validation_{name}": float(value) for name, value in values.items()}}


class WrittenRows:
    """The rows in a folder, each returned once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def new(self) -> Iterator[tuple[str, dict[str, float]]]:
        """Return the log's name and the row, for all rows written since the last call."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                content = file.read()
            # What follows the last end of a line is still being written.
            complete = content[: content.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(complete)
            for line in complete.splitlines():
                try:
                    yield path.stem, json.loads(line)
                except json.JSONDecodeError:
                    # A process was killed in the middle of a row and its successor wrote on; the table has the row.
                    logger.debug("Skipping an incomplete row in %s", path)
