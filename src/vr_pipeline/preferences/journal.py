"""Read the journal of annotations, which :mod:`vr_pipeline.annotation.store` writes.

The first line describes the study; then there is one line per answer and per undo. An unfinished last line, from a
crash, was never confirmed and is ignored.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vr_pipeline.errors import InputError

Part = Literal["training", "control", "clip"]
Choice = Literal["left", "right", "tie", "both_bad", "skip"]
CHOICES: Final = {"left": "a", "right": "b", "tie": "tie", "both_bad": "tie"}
"""Label of each choice, for the left (a) and the right (b) clip."""
SKIP: Final = "skip"
"""The choice of no label for a criterion."""
OVERALL = "overall"
"""The overall criterion, which cannot be skipped."""


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Study(Line):
    """The first line: the study."""

    event: Literal["study"] = "study"
    version: Literal[1] = 1
    study: str = Field(min_length=1, description="name of the study and of the file")
    source: str = Field(description="source of the clips: generated, preferences or policies")
    policies: tuple[str, ...] = Field(default=(), description="the two policies of a blind comparison")
    checklist: str = Field(default="", description="name and hash of the grades of clips; empty if pairs are compared")


class Label(Line):
    """One answer, complete without other tables."""

    event: Literal["label"] = "label"
    label: str = Field(min_length=8, max_length=64, description="identifier of the answer, made by the page")
    pair: str = Field(description="pair_id of the two clips under their prompt")
    prompt_id: str
    prompt: str
    criterion: str = Field(description="'overall' or another criterion")
    choice: Choice
    left: str = Field(description="video_id shown left (first)")
    right: str = Field(description="video_id shown right (second)")
    left_file: str = Field(description="path within the folder of clips")
    right_file: str
    left_generator: str = Field(description="generator or policy of the clip")
    right_generator: str
    annotator: str
    seconds: float = Field(ge=0, description="from the moment both clips were shown to the answer")
    at: str = Field(description="time of the answer, UTC, ISO 8601")
    order: str = Field(description="order of pairs, as the option --order")
    seed: int = Field(description="seed of order and sides")

    @property
    def asked(self) -> tuple[str, str, str]:
        """Annotator and question, to which only one answer is accepted."""
        return self.annotator, self.pair, self.criterion


class Grade(Line):
    """One grade of a clip in a sub-dimension, complete without other tables."""

    event: Literal["grade"] = "grade"
    label: str = Field(min_length=8, max_length=68, description="identifier of the answer, made by the page")
    part: Part = Field(description="training or control (with known answers), or clip")
    round: int = Field(default=0, ge=0, description="round of the training")
    video_id: str
    prompt: str
    file: str = Field(description="path within the folder of clips")
    generator: str = Field(default="", description="generator of the clip")
    criterion: str = Field(description="sub-dimension of the checklist")
    grade: str = Field(description="key of the sub-dimension's grade map; empty if skipped")
    reason: str = Field(default="", max_length=300, description="reason to skip the question")
    right: str = Field(default="", description="known answer of training and control items")
    annotator: str
    seconds: float = Field(ge=0, description="from the moment the question was shown to the answer")
    clip_seconds: float = Field(default=0.0, ge=0, description="length of the clip; 0 for an image")
    at: str = Field(description="time of the answer, UTC, ISO 8601")
    seed: int = Field(description="seed of the order")

    @property
    def item(self) -> tuple[str, int, str]:
        """The graded item: a clip can be both a control item and in the study."""
        return self.part, self.round, self.video_id

    @property
    def asked(self) -> tuple[str, str, str]:
        """Annotator and question, to which only one answer is accepted."""
        return self.annotator, " ".join(map(str, self.item)), self.criterion


class Undo(Line):
    """An answer undone by its annotator."""

    event: Literal["undo"] = "undo"
    label: str
    annotator: str
    at: str


_KINDS: dict[str, type[Line]] = {"study": Study, "label": Label, "grade": Grade, "undo": Undo}


def read_study(path: str | Path) -> Study:
    """Return the first line of a journal. Raises :class:`InputError`."""
    lines, _ = read_lines(Path(path))
    if not lines or not isinstance(lines[0], Study):
        raise InputError(
            "the file is not a journal of annotations",
            remedy="give a file written by kedro annotate",
            file=path,
            row=1,
        )
    return lines[0]


def read_labels(path: str | Path) -> list[Label]:
    """Return the valid comparisons of a journal in order; a server can be writing the file.

    Raises:
        InputError: the file is missing, a line is invalid, or the journal has grades.
    """
    if read_study(path).checklist:
        raise InputError(
            "the journal has grades of single clips, not comparisons",
            remedy="use it as judge_annotations (see docs/annotation.md), or give a journal of comparisons",
            file=path,
        )
    return [line for line in standing(read_lines(Path(path))[0]).values() if isinstance(line, Label)]


def read_grades(path: str | Path) -> list[Grade]:
    """Return the valid grades of a journal in order; raises as :func:`read_labels`."""
    if not read_study(path).checklist:
        raise InputError(
            "the journal has comparisons of clips, not grades",
            remedy="use it as human_preferences, or give a journal of kedro annotate --checklist",
            file=path,
        )
    return [line for line in standing(read_lines(Path(path))[0]).values() if isinstance(line, Grade)]


def is_journal(path: Path) -> bool:
    """Return whether a file starts like a journal, without reading the rest."""
    if path.suffix.lower() != ".jsonl":
        return False
    try:
        with path.open("rb") as file:
            record = json.loads(file.readline(1_000_000))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("event") == "study"


def standing(lines: Iterable[Line]) -> dict[str, Label | Grade]:
    """Return the answers that are not undone, by identifier."""
    labels: dict[str, Label | Grade] = {}
    for line in lines:
        if isinstance(line, Label | Grade):
            labels[line.label] = line
        elif isinstance(line, Undo):
            labels.pop(line.label, None)
    return labels


def standing_labels(path: str | Path) -> list[dict[str, Any]]:
    """Return the comparisons of :func:`read_labels` as records with the study's name."""
    study = read_study(path).study
    return [{**label.model_dump(exclude={"event"}), "study": study} for label in read_labels(path)]


def read_lines(path: Path) -> tuple[list[Line], int]:
    """Return the lines of a journal, and the length of finished lines in bytes."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        remedy = "run kedro annotate, or correct the path"
        raise InputError("the journal of annotations is missing", remedy=remedy, file=path) from None
    good = content.rfind(b"\n") + 1
    lines = []
    for number, text in enumerate(content[:good].splitlines(), start=1):
        try:
            record = json.loads(text)
            lines.append(_KINDS[record["event"]].model_validate(record))
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise InputError(
                f"the line is not valid in a journal of annotations ({type(error).__name__})",
                remedy="restore the file from a copy, or remove the line",
                file=path,
                row=number,
            ) from error
    return lines, good
