"""The journal of answers: a file of JSON lines that only grows, so that nothing once confirmed is ever lost.

The first line says what is compared; then comes a line for each answer and for each answer that was taken back. A line
is on the disk (fsync) before it counts. A line that a crash left unfinished was never confirmed: readers ignore it and
the next writer removes it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import PRIVATE, replaced, unlink_shared

logger = logging.getLogger(__name__)

Choice = Literal["left", "right", "tie", "both_bad"]
OVERALL = "overall"
"""The criterion of the comparison as a whole, beside the dimensions of a checklist."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Study(_Line):
    """The first line: what the answers of a journal are about."""

    event: Literal["study"] = "study"
    version: Literal[1] = 1
    study: str = Field(min_length=1, description="name, also that of the file")
    source: str = Field(description="where the clips come from: generated, preferences or policies")
    policies: tuple[str, ...] = Field(default=(), description="the two policies of a blind comparison")


class Label(_Line):
    """One answer; everything needed to use it without the tables it was asked from."""

    event: Literal["label"] = "label"
    label: str = Field(min_length=8, max_length=64, description="identifier made by the page, once for each answer")
    pair: str = Field(description="pair_id of the two clips under their prompt")
    prompt_id: str
    prompt: str
    criterion: str = Field(description="'overall' or the name of a dimension")
    choice: Choice
    left: str = Field(description="video_id shown left (first)")
    right: str = Field(description="video_id shown right (second)")
    left_file: str = Field(description="path within the folder of clips")
    right_file: str
    left_generator: str = Field(description="what made the clip: a generator's name, or the policy")
    right_generator: str
    annotator: str
    seconds: float = Field(ge=0, description="from the moment both clips were shown to the answer")
    at: str = Field(description="time of the answer, UTC, ISO 8601")
    order: str = Field(description="how pairs were ordered: random or informative")
    seed: int = Field(description="seed of that order and of the sides")


class Undo(_Line):
    """An answer that its annotator took back."""

    event: Literal["undo"] = "undo"
    label: str
    annotator: str
    at: str


_KINDS: dict[str, type[_Line]] = {"study": Study, "label": Label, "undo": Undo}


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
                self._check(study)
            else:
                self._create(study)
            self._stream = self.path.open("ab", buffering=0)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Close the file and give it free."""
        self._stream.close()
        self._lock.release()

    def labels(self) -> list[Label]:
        """The answers that stand, in the order they were given."""
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

    def _append(self, line: _Line) -> None:
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

    def _create(self, study: Study) -> None:
        with replaced(self.path, mode=PRIVATE) as temporary:
            temporary.write_bytes(_to_bytes(study))

    def _recover(self) -> None:
        lines, good = _read_lines(self.path)
        size = self.path.stat().st_size
        if good < size:
            logger.warning("%s: an unfinished last line of %d bytes was removed.", self.path, size - good)
            os.truncate(self.path, good)
        for line in lines:
            if isinstance(line, Label):
                self._labels[line.label] = line
            elif isinstance(line, Undo):
                self._labels.pop(line.label, None)
                self._taken_back.add(line.label)

    def _check(self, study: Study) -> None:
        found = read_study(self.path)
        if (found.source, found.policies) != (study.source, study.policies):
            raise InputError(
                f"the journal is about {_about(found)}, not about {_about(study)}",
                remedy="choose another name with --study",
                file=self.path,
            )


class AlreadyAnswered(Exception):
    """A second answer of one annotator to the same question."""

    def __init__(self, annotator: str, pair: str, criterion: str) -> None:
        super().__init__(f"{annotator} has answered {criterion} of pair {pair} already")


def read_study(path: str | Path) -> Study:
    """The first line of a journal. Raises :class:`InputError`."""
    lines, _ = _read_lines(Path(path))
    if not lines or not isinstance(lines[0], Study):
        raise InputError(
            "the file does not begin as a journal of annotations does",
            remedy="give a file that kedro annotate wrote",
            file=path,
            row=1,
        )
    return lines[0]


def read_labels(path: str | Path) -> list[Label]:
    """The answers of a journal that stand, in the order they were given; the file may be in use by a server.

    Raises:
        InputError: the file does not exist or a line cannot be understood.
    """
    read_study(path)
    standing: dict[str, Label] = {}
    for line in _read_lines(Path(path))[0]:
        if isinstance(line, Label):
            standing[line.label] = line
        elif isinstance(line, Undo):
            standing.pop(line.label, None)
    return list(standing.values())


def standing_labels(path: str | Path) -> list[dict[str, Any]]:
    """As :func:`read_labels`, as plain records with the study's name."""
    study = read_study(path).study
    return [{**label.model_dump(exclude={"event"}), "study": study} for label in read_labels(path)]


def _read_lines(path: Path) -> tuple[list[_Line], int]:
    """Lines of a journal, and the length in bytes of those that are finished."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            "there is no such journal of annotations", remedy="run kedro annotate, or correct the path", file=path
        ) from None
    good = content.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(content[:good].splitlines(), start=1):
        try:
            record = json.loads(text)
            lines.append(_KINDS[record["event"]].model_validate(record))
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise InputError(
                f"the line is not one of a journal of annotations ({type(error).__name__})",
                remedy="restore the file from a copy, or remove the line",
                file=path,
                row=number,
            ) from error
    return lines, good


def _to_bytes(line: _Line) -> bytes:
    # ASCII: no character of a prompt can then be taken for the end of a line.
    return (json.dumps(line.model_dump(mode="json"), ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def _about(study: Study) -> str:
    return f"the policies {' and '.join(study.policies)}" if study.policies else f"clips of '{study.source}'"
