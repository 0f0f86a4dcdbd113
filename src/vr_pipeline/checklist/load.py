"""Read a checklist from YAML and report mistakes with their place."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, ValidationError
from pydantic_core import PydanticCustomError

from vr_pipeline.checklist.schema import Checklist, Question, SubDimension, grade_key
from vr_pipeline.errors import InputError


def load_checklist(path: str | Path) -> Checklist:
    """Read a checklist file: YAML, or one of the public VisionReward question lists (``.txt``).

    The YAML format, with entries in the order of asking::

        name: my checklist
        modality: video            # or image
        dimensions:
          - name: quality
            sub_dimensions:
              - name: sharpness
                questions:
                  - {id: sharp, text: Is the clip sharp?}
                  - {id: readable, text: Can things be told apart?, gate: sharp, weighted: true, feature: answer}
                grades:             # optional: answers of each human grade, one per question
                  3: [yes, yes]
                  2: [no, yes]
                  1: [no, no]

    Raises:
        InputError: the file is missing or not YAML, lacks a key, has a duplicated question, an unknown gate, a circle
            of gates or a grade without one answer per question; or it is not a public list.
    """
    return _first_raised(*examine_checklist(path))


def checklist_from_mapping(content: Any, *, file: str | Path | None = None) -> Checklist:
    """Build a checklist from the parsed content of a checklist file. Raises :class:`InputError`."""
    return _first_raised(*_examine(content, file))


def examine_checklist(path: str | Path) -> tuple[Checklist | None, list[InputError]]:
    """Read as :func:`load_checklist`, but return all problems."""
    path = Path(path)
    try:
        if path.suffix.lower() == ".txt":
            from vr_pipeline.checklist.visionreward import read_questions

            return read_questions(path), []
        return _examine(_parsed(path), path)
    except InputError as error:
        return None, [error]


def _first_raised(checklist: Checklist | None, problems: Sequence[InputError]) -> Checklist:
    if checklist is None:
        raise problems[0]
    return checklist


def _parsed(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
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
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InputError(
            f"the checklist is not valid YAML ({getattr(error, 'problem', None) or error})",
            remedy="Correct the indentation or the quotes at that row",
            file=path,
            row=mark.line + 1 if mark else None,
        ) from None


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise PydanticCustomError("missing", "not text")
    return str(value).strip()


def _answer(value: Any) -> Any:
    # YAML 1.1 reads yes and no as booleans, but quoted ones as text.
    return {"yes": True, "no": False}.get(value, value) if isinstance(value, str) else value


_Text = Annotated[str, BeforeValidator(_text)]
_Answers = list[Annotated[StrictBool | None, BeforeValidator(_answer)]]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Question(_Entry):
    id: _Text
    text: _Text
    gate: _Text | None = None
    weighted: StrictBool = True
    feature: Literal["answer", "probability"] = "answer"


class _SubDimension(_Entry):
    name: _Text
    questions: list[_Question] = Field(min_length=1)
    grades: dict[Any, _Answers] | None = None


class _Dimension(_Entry):
    name: _Text
    sub_dimensions: list[_SubDimension] = Field(min_length=1)


class _File(_Entry):
    name: _Text
    modality: Literal["video", "image"]
    dimensions: list[_Dimension] = Field(min_length=1)


_LEVELS: Final[dict[str, tuple[str, type[_Entry]]]] = {
    "dimensions": ("dimension", _Dimension),
    "sub_dimensions": ("sub-dimension", _SubDimension),
    "questions": ("question", _Question),
}
_ABSENT: Final = ("missing", "too_short", "list_type", "model_type", "model_attributes_type")
_REMEDIES: Final = {
    "modality": "Use 'modality: video' or 'modality: image'",
    "weighted": "Use true or false",
    "feature": "Use 'answer' or 'probability'",
    "grades": "Use lines 'grade: [yes, no, ...]' with yes, no or null for each question",
}


def _examine(content: Any, file: str | Path | None) -> tuple[Checklist | None, list[InputError]]:
    if not isinstance(content, Mapping):
        problem = "the checklist is empty or is not a mapping"
        return None, [InputError(problem, remedy="Give it the keys name, modality and dimensions", file=file)]
    try:
        entries, problems = _File.model_validate(content), []
    except ValidationError as error:
        problems = [_mistake(one["type"], one["loc"], one["input"], content, file) for one in error.errors()]
    problems += _contradictions(content, file)
    return (None, problems) if problems else (_checklist(entries), [])


def _mistake(
    kind: str, place: Sequence[int | str], value: Any, content: Mapping[str, Any], file: str | Path | None
) -> InputError:
    """Describe the problem at a place of the file by the names of its entries."""
    model: type[_Entry] = _File
    entry, where, key, grade = content, "the checklist", "", ""
    for step, part in enumerate(place):
        if isinstance(part, int) and key in _LEVELS:
            noun, model = _LEVELS[key]
            entry = entry[key][part]
            name = entry.get("id", entry.get("name")) if isinstance(entry, Mapping) else None
            where = f"a {noun} of {where}" if name is None else f"{noun} '{name}'"
        elif key == "grades":
            grade = f"grade '{place[step]}'"
            break
        else:
            key = str(part)
    if kind == "extra_forbidden":
        problem, remedy = (
            f"{where} has the unknown key '{key}'",
            f"Remove it or use one of: {', '.join(model.model_fields)}",
        )
    elif kind in _ABSENT and not grade:
        problem, remedy = f"{where} has no '{key}'", f"Add '{key}'"
    else:
        problem, remedy = f"{grade or repr(key)} of {where} is {value!r}", _REMEDIES.get(key, "Correct it")
    return InputError(problem, remedy=remedy, file=file, field=key)


def _contradictions(content: Mapping[str, Any], file: str | Path | None) -> Iterator[InputError]:
    """Find problems across entries, even if single entries are wrong."""
    subs = [sub for one in _mappings(content, "dimensions") for sub in _mappings(one, "sub_dimensions")]
    gates = [
        (str(one["id"]).strip(), None if one.get("gate") is None else str(one["gate"]).strip())
        for sub in subs
        for one in _mappings(sub, "questions")
        if one.get("id") is not None
    ]
    for what, names in (
        ("question id", [name for name, _ in gates]),
        ("sub-dimension", [one.get("name") for one in subs]),
    ):
        for name, count in Counter(names).items():
            if count > 1 and name is not None:
                problem = f"the {what} '{name}' is used {count} times"
                yield InputError(problem, remedy="Give each its own name", file=file, field="id")
    gate_of = dict(gates)
    for name, gate in gates:
        if gate is not None and gate not in gate_of:
            problem = f"question '{name}' has the gate '{gate}', which is not a question of this checklist"
            remedy = f"Use the id of another question as gate, for example '{gates[0][0]}'"
            yield InputError(problem, remedy=remedy, file=file, field="gate")
        passed: list[str] = []
        while gate is not None and gate not in passed:
            passed.append(gate)
            gate = gate_of.get(gate)
        if name in passed:
            problem = f"the gates of question '{name}' form a circle through '{passed[0]}'"
            yield InputError(problem, remedy="Remove one of these gates", file=file, field="gate")
    for sub in subs:
        grades, count = sub.get("grades"), len(_mappings(sub, "questions"))
        for grade, row in grades.items() if isinstance(grades, Mapping) else ():
            if isinstance(row, list) and len(row) != count:
                problem = (
                    f"grade '{grade}' of sub-dimension '{sub.get('name')}' has {len(row)} answers for {count} questions"
                )
                remedy = "Give one of yes, no or null for each question of the sub-dimension, in order"
                yield InputError(problem, remedy=remedy, file=file, field="grades")


def _mappings(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries = content.get(key)
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def _checklist(entries: _File) -> Checklist:
    subs = []
    for dimension in entries.dimensions:
        for sub in dimension.sub_dimensions:
            place = {"dimension": dimension.name, "sub_dimension": sub.name}
            questions = tuple(
                Question(question_id=one.id, **place, **one.model_dump(exclude={"id"})) for one in sub.questions
            )
            grades = {grade_key(grade): tuple(row) for grade, row in (sub.grades or {}).items()}
            subs.append(SubDimension(name=sub.name, dimension=dimension.name, questions=questions, grades=grades))
    return Checklist(name=entries.name, modality=entries.modality, sub_dimensions=tuple(subs))
