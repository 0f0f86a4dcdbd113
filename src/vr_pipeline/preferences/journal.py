"""Read the journal of annotations, which :mod:`vr_pipeline.annotation.store` writes.

The first line says what is compared; then comes a line for each answer and for each answer that was taken back. A line
that a crash left unfinished was never confirmed and does not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vr_pipeline.errors import InputError

Choice = Literal["left", "right", "tie", "both_bad", "skip"]
CHOICES: Final = {"left": "a", "right": "b", "tie": "tie", "both_bad": "tie"}
"""What each choice says of the clip shown left (a) and right (b)."""
SKIP: Final = "skip"
"""The choice of who cannot say: no label in this criterion."""
OVERALL = "overall"
"""The criterion of the comparison as a whole, beside the others that are asked; it cannot be skipped."""


class Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Study(Line):
    """The first line: what the answers of a journal are about."""

    event: Literal["study"] = "study"
    version: Literal[1] = 1
    study: str = Field(min_length=1, description="name, also that of the file")
    source: str = Field(description="where the clips come from: generated, preferences or policies")
    policies: tuple[str, ...] = Field(default=(), description="the two policies of a blind comparison")


class Label(Line):
    """One answer; everything needed to use it without the tables it was asked from."""

    event: Literal["label"] = "label"
    label: str = Field(min_length=8, max_length=64, description="identifier made by the page, once for each answer")
    pair: str = Field(description="pair_id of the two clips under their prompt")
    prompt_id: str
    prompt: str
    criterion: str = Field(description="'overall' or the name of what was asked")
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


class Undo(Line):
    """An answer that its annotator took back."""

    event: Literal["undo"] = "undo"
    label: str
    annotator: str
    at: str


_KINDS: dict[str, type[Line]] = {"study": Study, "label": Label, "undo": Undo}


def read_study(path: str | Path) -> Study:
    """Return the first line of a journal. Raises :class:`InputError`."""
    lines, _ = read_lines(Path(path))
    if not lines or not isinstance(lines[0], Study):
        raise InputError(
            "the file does not begin as a journal of annotations does",
            remedy="give a file that kedro annotate wrote",
            file=path,
            row=1,
        )
    return lines[0]


def read_labels(path: str | Path) -> list[Label]:
    """Return the answers of a journal that stand, in the order they were given; the file may be in use by a server.

    Raises:
        InputError: the file does not exist or a line cannot be understood.
    """
    read_study(path)
    return list(standing(read_lines(Path(path))[0]).values())


def standing(lines: Iterable[Line]) -> dict[str, Label]:
    """Return the answers that nobody took back, by identifier."""
    labels: dict[str, Label] = {}
    for line in lines:
        if isinstance(line, Label):
            labels[line.label] = line
        elif isinstance(line, Undo):
            labels.pop(line.label, None)
    return labels


def standing_labels(path: str | Path) -> list[dict[str, Any]]:
    """As :func:`read_labels`, as plain records with the study's name."""
    study = read_study(path).study
    return [{**label.model_dump(exclude={"event"}), "study": study} for label in read_labels(path)]


def read_lines(path: Path) -> tuple[list[Line], int]:
    """Return the lines of a journal, and the length in bytes of those that are finished."""
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
