"""Write the journal of answers: an append-only file of JSON lines, so that confirmed answers are never lost.

A line counts when it is on the disk (fsync); the next writer removes an unfinished one. Lines and their reader are in
:mod:`vr_pipeline.preferences.journal`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Generic, TypeVar, cast

from filelock import FileLock, Timeout

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import Grade, Label, Line, Study, Undo, read_lines, read_study, standing
from vr_pipeline.storage.atomic import PRIVATE, replaced, unlink_shared

logger = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT", Label, Grade)


class Journal(Generic[AnswerT]):
    """A journal of labels or grades, opened for writing by one process; thread-safe.

    Args:
        path: the file; created with its folder if missing.
        study: must match that of an existing file.

    Raises:
        InputError: another process has it open, its study differs, or a line is invalid.
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
                "another annotation server is writing this journal",
                remedy="use its page, stop it, or give another name with --study",
                file=self.path,
            ) from None
        try:
            self._labels: dict[str, AnswerT] = {}
            self._asked: set[tuple[str, str, str]] = set()
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
        """Close the file and release its lock."""
        self._stream.close()
        self._lock.release()

    def labels(self) -> list[AnswerT]:
        """Return the valid answers in order."""
        with self._guard:
            return list(self._labels.values())

    def find(self, label: str) -> AnswerT | None:
        """Return the valid answer with an identifier."""
        with self._guard:
            return self._labels.get(label)

    def add(self, label: AnswerT) -> bool:
        """Write an answer; return False if it was written before (a page that tries again).

        Raises:
            AlreadyAnswered: the annotator has another valid answer to the question.
        """
        with self._guard:
            if label.label in self._labels or label.label in self._taken_back:
                return False
            if label.asked in self._asked:
                raise AlreadyAnswered(*label.asked)
            self._append(label)
            self._labels[label.label] = label
            self._asked.add(label.asked)
            return True

    def undo(self, annotator: str, *, at: str) -> AnswerT | None:
        """Undo and return the last valid answer of an annotator; None if there is none."""
        with self._guard:
            last = next((one for one in reversed(self._labels.values()) if one.annotator == annotator), None)
            if last is None:
                return None
            self._append(Undo(label=last.label, annotator=annotator, at=at))
            del self._labels[last.label]
            self._asked.discard(last.asked)
            self._taken_back.add(last.label)
            return last

    def _append(self, line: Line) -> None:
        # Unbuffered, so that a failed write leaves nothing for a later one.
        end = os.fstat(self._stream.fileno()).st_size
        content = _to_bytes(line)
        try:
            if self._stream.write(content) != len(content):
                raise OSError("the line was written only in part")
            os.fsync(self._stream.fileno())
        except OSError:
            os.truncate(self.path, end)
            raise

    def _recover(self) -> None:
        lines, good = read_lines(self.path)
        size = self.path.stat().st_size
        if good < size:
            logger.warning("%s: removed an unfinished last line of %d bytes.", self.path, size - good)
            os.truncate(self.path, good)
        self._labels = cast("dict[str, AnswerT]", standing(lines))
        self._asked = {label.asked for label in self._labels.values()}
        self._taken_back = {line.label for line in lines if isinstance(line, Undo)}


class AlreadyAnswered(Exception):
    """A second answer of one annotator to the same question."""

    def __init__(self, annotator: str, item: str, criterion: str) -> None:
        super().__init__(f"{annotator} has already answered {criterion} of {item}")


def _to_bytes(line: Line) -> bytes:
    # ASCII, so that no character of a prompt is a line break.
    return (json.dumps(line.model_dump(mode="json"), ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def _check(path: Path, study: Study) -> None:
    def about(one: Study) -> str:
        if one.checklist:
            return f"grades of '{one.source}' with the checklist {one.checklist}"
        return f"the policies {' and '.join(one.policies)}" if one.policies else f"clips of '{one.source}'"

    found = read_study(path)
    if about(found) != about(study):
        raise InputError(
            f"the journal is about {about(found)}, not about {about(study)}",
            remedy="give another name with --study",
            file=path,
        )
