"""Reads a checklist from YAML, with messages that name the place of a mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vr_pipeline.checklist.schema import Checklist, Question, SubDimension, _grade_key, build_checklist
from vr_pipeline.errors import InputError


def load_checklist(path: str | Path) -> Checklist:
    """Reads a checklist file: YAML, or one of the public VisionReward question lists (``.txt``).

    The format of YAML, every level a list in the order of asking::

        name: my checklist
        modality: video            # or image
        dimensions:
          - name: quality
            sub_dimensions:
              - name: sharpness
                questions:
                  - {id: sharp, text: Is the clip sharp?}
                  - {id: readable, text: Can things be told apart?, gate: sharp, weighted: true, feature: answer}
                grades:             # optional: what a person's grade answers, one entry a question
                  3: [yes, yes]
                  2: [no, yes]
                  1: [no, no]

    Raises:
        InputError: the file is missing, is no YAML, lacks a key, or breaks a rule of
            :func:`vr_pipeline.checklist.schema.build_checklist`; or is no public list.
    """
    import yaml

    path = Path(path)
    if path.suffix.lower() == ".txt":
        from vr_pipeline.checklist.visionreward import read_visionreward

        return read_visionreward(path)[0]
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("the checklist does not exist", remedy="Give the path of a checklist", file=path) from None
    except OSError as error:
        raise InputError(
            f"the checklist cannot be read ({error.strerror})", remedy="Give the path of a YAML file", file=path
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"the checklist is not UTF-8 text (byte {error.start})", remedy="Save it as UTF-8", file=path
        ) from None
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(
            f"the checklist is not valid YAML ({getattr(error, 'problem', None) or error})",
            remedy="Correct the indentation or the quotes at that row",
            file=path,
            row=mark.line + 1 if mark else None,
        ) from None
    return checklist_from_mapping(content, file=path)


def checklist_from_mapping(content: Any, *, file: str | Path | None = None) -> Checklist:
    """Builds a checklist from the parsed content of a checklist file. Raises :class:`InputError`."""
    if not isinstance(content, Mapping):
        raise InputError(
            "the checklist is empty or is not a mapping",
            remedy="Begin it with the keys name, modality and dimensions",
            file=file,
        )
    _refuse_unknown_keys(content, {"name", "modality", "dimensions"}, "the checklist", file)
    sub_dimensions: list[SubDimension] = []
    for dimension in _list_of_mappings(content, "dimensions", "the checklist", file):
        dimension_name = _text(dimension, "name", "a dimension", file)
        place = f"dimension '{dimension_name}'"
        _refuse_unknown_keys(dimension, {"name", "sub_dimensions"}, place, file)
        sub_dimensions.extend(
            _read_sub_dimension(sub, dimension_name, file)
            for sub in _list_of_mappings(dimension, "sub_dimensions", place, file)
        )
    return build_checklist(
        _text(content, "name", "the checklist", file),
        _text(content, "modality", "the checklist", file),
        sub_dimensions,
        file=file,
    )


def _read_sub_dimension(sub: Mapping[str, Any], dimension: str, file: str | Path | None) -> SubDimension:
    name = _text(sub, "name", f"a sub-dimension of '{dimension}'", file)
    place = f"sub-dimension '{name}'"
    _refuse_unknown_keys(sub, {"name", "questions", "grades"}, place, file)
    questions = []
    for entry in _list_of_mappings(sub, "questions", place, file):
        identifier = _text(entry, "id", f"a question of {place}", file)
        question_place = f"question '{identifier}'"
        _refuse_unknown_keys(entry, {"id", "text", "gate", "weighted", "feature"}, question_place, file)
        weighted = entry.get("weighted", True)
        if not isinstance(weighted, bool):
            raise InputError(
                f"'weighted' of {question_place} is {weighted!r}",
                remedy="Write true or false",
                file=file,
                field="weighted",
            )
        feature = entry.get("feature", "answer")
        if feature not in ("answer", "probability"):
            raise InputError(
                f"'feature' of {question_place} is {feature!r}",
                remedy="Write 'answer' or 'probability'",
                file=file,
                field="feature",
            )
        questions.append(
            Question(
                question_id=identifier,
                text=_text(entry, "text", question_place, file),
                dimension=dimension,
                sub_dimension=name,
                gate=_text(entry, "gate", question_place, file) if entry.get("gate") is not None else None,
                weighted=weighted,
                feature=feature,
            )
        )
    return SubDimension(
        name=name, dimension=dimension, questions=tuple(questions), grades=_read_grades(sub.get("grades"), place, file)
    )


def _read_grades(grades: Any, place: str, file: str | Path | None) -> dict[str, tuple[bool | None, ...]]:
    if grades is None:
        return {}
    if not isinstance(grades, Mapping):
        raise InputError(
            f"'grades' of {place} is not a mapping",
            remedy="Write 'grade: [yes, no, ...]' lines",
            file=file,
            field="grades",
        )
    rows: dict[str, tuple[bool | None, ...]] = {}
    for grade, row in grades.items():
        if not isinstance(row, list) or not all(_is_answer(value) for value in row):
            raise InputError(
                f"grade '{grade}' of {place} is {row!r}",
                remedy="Give a list of yes, no or null, one for each question",
                file=file,
                field="grades",
            )
        rows[_grade_key(grade)] = tuple(value == "yes" if isinstance(value, str) else value for value in row)
    return rows


def _is_answer(value: Any) -> bool:
    # YAML 1.1 reads yes and no as booleans; quoted ones arrive as text.
    return value is None or isinstance(value, bool) or value in ("yes", "no")


def _text(mapping: Mapping[str, Any], key: str, place: str, file: str | Path | None) -> str:
    value = mapping.get(key)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not str(value).strip():
        raise InputError(f"{place} has no '{key}'", remedy=f"Add '{key}' with a text", file=file, field=key)
    return str(value).strip()


def _list_of_mappings(
    mapping: Mapping[str, Any], key: str, place: str, file: str | Path | None
) -> list[Mapping[str, Any]]:
    value = mapping.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(entry, Mapping) for entry in value):
        what = "questions" if key == "questions" else f"'{key}'"
        raise InputError(f"{place} has no {what}", remedy=f"Add '{key}' with at least one entry", file=file, field=key)
    return value


def _refuse_unknown_keys(mapping: Mapping[str, Any], known: set[str], place: str, file: str | Path | None) -> None:
    for key in mapping:
        if key not in known:
            raise InputError(
                f"{place} has the unknown key '{key}'",
                remedy=f"Remove it or use one of: {', '.join(sorted(known))}",
                file=file,
                field=str(key),
            )
