"""The guide of a graded annotation: meaning and examples of grades, training and control of annotators.

Source: VisionReward, section 3.1.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field

from vr_pipeline.checklist.schema import PROMPT_PLACEHOLDER, Checklist, SubDimension, grade_key, plain_name
from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.setting_names import validated


class GradeOption(Parameters):
    """One option of a sub-dimension."""

    text: str = Field(min_length=1, description="Meaning of the grade; [[prompt]] is replaced.")
    example: str = Field("", description="Example in words.")
    clip: str | None = Field(None, description="Example clip or picture, as a path relative to the guide.")


def _grade_keys(options: Any) -> Any:
    # YAML 1.1 reads yes and no as booleans.
    words = {True: "yes", False: "no"}
    if not isinstance(options, Mapping):
        return options
    return {words[key] if isinstance(key, bool) else grade_key(key): value for key, value in options.items()}


class GradeScale(Parameters):
    """One sub-dimension."""

    question: str = Field(min_length=1, description="The question; [[prompt]] is replaced.")
    options: Annotated[dict[str, GradeOption], BeforeValidator(_grade_keys)] = Field(
        default_factory=dict, description="Options by grade; other grades are described by their questions."
    )


class GradingGuide(Parameters):
    """Guide for a graded annotation of a checklist. Paths start from the guide's folder."""

    sub_dimensions: dict[str, GradeScale] = Field(default_factory=dict, description="Questions by sub-dimension.")
    training: str | None = Field(None, description="Clips with known grades for the training; null for no training.")
    control: str | None = Field(None, description="Clips with known grades, mixed in unmarked; null for none.")
    pass_share: float = Field(
        0.8, ge=0, le=1, description="Required share of correct training answers; control items warn below it."
    )
    training_rounds: int = Field(3, ge=1, description="Largest number of training rounds.")
    control_share: float = Field(0.1, gt=0, lt=1, description="Control items per clip, until each was shown once.")
    annotators_per_clip: int = Field(2, ge=1, description="Annotators per clip.")
    adjudicate_above: int = Field(
        1, ge=0, description="Largest accepted difference of grades; above it, another annotator grades the clip."
    )
    seconds_per_option: float = Field(
        0.1, ge=0, description="Shortest plausible time per option in seconds, in addition to the clip's length."
    )
    fast_share: float = Field(
        0.5, ge=0, le=1, description="Share of the others' median seconds below which an annotator is flagged."
    )


@dataclass(frozen=True)
class Option:
    """A grade with its description."""

    grade: str
    text: str
    example: str = ""
    clip: Path | None = None


@dataclass(frozen=True)
class Criterion:
    """A question about a sub-dimension, with the best option first."""

    name: str
    question: str
    options: tuple[Option, ...]


def load_guide(path: Path | None, checklist: Checklist) -> tuple[GradingGuide, list[Criterion]]:
    """Read a guide, and return it with the questions in checklist order.

    Args:
        path: a YAML file of :class:`GradingGuide`; None for defaults, with options described by their questions.
        checklist: the graded checklist.

    Raises:
        InputError: the file cannot be read; a key, sub-dimension, grade or example clip is unknown; or the checklist
            has no grades.
    """
    guide = GradingGuide() if path is None else _read(path)
    if not checklist.graded:
        raise InputError(
            f"checklist '{checklist.name}' has no grades",
            remedy="add 'grades' to its sub-dimensions, see docs/file_formats.md",
        )
    scales = {plain_name(name): (name, scale) for name, scale in guide.sub_dimensions.items()}
    asked = {plain_name(sub.name): sub for sub in checklist.graded}
    for key, (name, scale) in scales.items():
        known = asked[key].scale if key in asked else {}
        strange = [name] if key not in asked else [grade for grade in scale.options if grade not in known]
        if strange:
            raise InputError(
                f"checklist '{checklist.name}' has no grades for '{strange[0]}'",
                remedy=f"use one of {', '.join(known or [sub.name for sub in checklist.graded])}",
                file=path,
                field=name,
            )
    folder = path.parent if path is not None else Path()
    given = {sub.name: scales[plain_name(sub.name)][1] for sub in checklist.graded if plain_name(sub.name) in scales}
    return guide, [_criterion(sub, given.get(sub.name), folder) for sub in checklist.graded]


def grades_key(checklist: Checklist) -> str:
    """Return name and hash of the grades of a checklist, which must match those of a journal."""
    scales = [
        [sub.name, [one.question_id for one in sub.questions], list(sub.scale.items())] for sub in checklist.graded
    ]
    return f"{checklist.name} {content_hash('scales', json.dumps(scales))}"


def inside(folder: Path, name: str, *, file: Path | None, field: str) -> Path:
    """Return a file of a guide or its tables. Raises :class:`InputError` if it is missing or outside the folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        problem = f"there is no file '{name}' in the folder"
        raise InputError(problem, remedy="give its path relative to the folder", file=file, field=field)
    return path


def _read(path: Path) -> GradingGuide:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"the guide cannot be read ({problem})", remedy="give a YAML file", file=path) from None
    what = "the guide cannot be used: "
    return validated(GradingGuide, content, remedy="correct it", file=path, field="guide", what=what)


def _criterion(sub: SubDimension, scale: GradeScale | None, folder: Path) -> Criterion:
    options = []
    for grade, answers in sub.scale.items():
        given = scale.options.get(grade) if scale is not None else None
        if given is None:
            options.append(Option(grade, _in_words(sub, answers)))
        else:
            clip = inside(folder, given.clip, file=None, field=sub.name) if given.clip else None
            options.append(Option(grade, given.text, given.example, clip))
    asked = sub.questions[0].text if len(sub.questions) == 1 else f"{sub.name.replace('_', ' ').capitalize()}?"
    return Criterion(sub.name, asked if scale is None else scale.question, tuple(options))


def _in_words(sub: SubDimension, answers: tuple[bool | None, ...]) -> str:
    """Describe a grade by the strictest question with answer yes, else the least strict one with answer no."""
    if len(sub.questions) == 1 and answers[0] is not None:
        return "Yes" if answers[0] else "No"
    texts = [question.text for question in sub.questions]
    yes = [text for text, answer in zip(texts, answers, strict=True) if answer]
    no = [text for text, answer in zip(texts, answers, strict=True) if answer is False]
    return f"Yes: {yes[0]}" if yes else f"No: {no[-1]}" if no else "Cannot be decided"


def filled(text: str, prompt: str) -> str:
    """Return a text with the prompt of the clip."""
    return text.replace(PROMPT_PLACEHOLDER, prompt)
