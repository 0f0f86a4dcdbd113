"""Write the journal of answers: a file of JSON lines that only grows, so that nothing once confirmed is ever lost.

A line is on the disk (fsync) before it counts; an unfinished one is removed by the next writer. What the lines say, and
how they are read, is in :mod:`vr_pipeline.preferences.journal`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import Label, Line, Study, Undo, read_lines, read_study, standing
from vr_pipeline.storage.atomic import PRIVATE, replaced, unlink_shared

logger = logging.getLogger(__name__)


class Journal:
    """A journal opened for writing by this process alone; safe to use from several threads.

    Args:
        path: the file; made with its folder if it does not exist.
        study: what the answers are about; an existing file must be about the same.

    Raises:
        InputError: another process has it open, it is about something else, or a line cannot be understood.
    """

    def __init__(self, path: str | Path, study: Study) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._guard = threading.Lock()
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                "another annotation server writes this journal",
                remedy="open its page, stop it first, or choose another name with --study",
                file=self.path,
            ) from None
        try:
            self._labels: dict[str, Label] = {}
            self._taken_back: set[str] = set()
            if self.path.exists():
                unlink_shared(self.path, mode=PRIVATE)
                self._recover()
                _check(self.path, study)
            else:
                with replaced(self.path, mode=PRIVATE) as temporary:
                    temporary.write_bytes(_to_bytes(study))
            self._stream = self.path.open("ab", buffering=0)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Close the file and give it free."""
        self._stream.close()
        self._lock.release()

    def labels(self) -> list[Label]:
        """Return the answers that stand, in the order they were given."""
        with self._guard:
            return list(self._labels.values())

    def add(self, label: Label) -> bool:
        """Write an answer; False if this very answer is there already (a page that asked again after a lost reply).

        Raises:
            AlreadyAnswered: the annotator has another standing answer to the same pair and criterion.
        """
        with self._guard:
            if label.label in self._labels or label.label in self._taken_back:
                return False
            key = (label.annotator, label.pair, label.criterion)
            if any((one.annotator, one.pair, one.criterion) == key for one in self._labels.values()):
                raise AlreadyAnswered(*key)
            self._append(label)
            self._labels[label.label] = label
            return True

    def undo(self, annotator: str, *, at: str) -> Label | None:
        """Take back the last standing answer of an annotator; None if there is none."""
        with self._guard:
            last = next((one for one in reversed(self._labels.values()) if one.annotator == annotator), None)
            if last is None:
                return None
            self._append(Undo(label=last.label, annotator=annotator, at=at))
            del self._labels[last.label]
            self._taken_back.add(last.label)
            return last

    def _append(self, line: Line) -> None:
        # Unbuffered: a write that fails leaves nothing behind that a later one would drag along.
        end = os.fstat(self._stream.fileno()).st_size
        content = _to_bytes(line)
        try:
            if self._stream.write(content) != len(content):
                raise OSError("the disk took only a part of the line")
            os.fsync(self._stream.fileno())
        except OSError:
            os.truncate(self.path, end)
            raise

    def _recover(self) -> None:
        lines, good = read_lines(self.path)
        size = self.path.stat().st_size
        if good < size:
            logger.warning("%s: an unfinished last line of %d bytes was removed.", self.path, size - good)
            os.truncate(self.path, good)
        self._labels = standing(lines)
        self._taken_back = {line.label for line in lines if isinstance(line, Undo)}


class AlreadyAnswered(Exception):
    """A second answer of one annotator to the same question."""

    def __init__(self, annotator: str, pair: str, criterion: str) -> None:
        super().__init__(f"{annotator} has answered {criterion} of pair {pair} already")


def _to_bytes(line: Line) -> bytes:
    # ASCII: no character of a prompt can then be taken for the end of a line.
    return (json.dumps(line.model_dump(mode="json"), ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def _check(path: Path, study: Study) -> None:
    def about(one: Study) -> str:
        return f"the policies {' and '.join(one.policies)}" if one.policies else f"clips of '{one.source}'"

    found = read_study(path)
    if about(found) != about(study):
        raise InputError(
            f"the journal is about {about(found)}, not about {about(study)}",
            remedy="choose another name with --study",
            file=path,
        )
