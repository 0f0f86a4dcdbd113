"""A checklist: dimensions, sub-dimensions, yes/no questions with gates, and answers of grades.

A checklist judges a clip or image by yes/no questions (VisionReward, section 3.1 and Figure 2). It is immutable, and
its content hash links answers and weights to it.
"""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash

PROMPT_PLACEHOLDER = "[[prompt]]"
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Question(_Frozen):
    """A yes/no question."""

    question_id: str = Field(min_length=1, description="identifier, unique in the checklist")
    text: str = Field(min_length=1, description="the question; [[prompt]] stands for the clip's prompt")
    dimension: str = Field(min_length=1)
    sub_dimension: str = Field(min_length=1)
    gate: str | None = Field(default=None, description="question whose 'no' turns this one off (it counts 0)")
    weighted: bool = Field(default=True, description="false for questions that only gate others")
    feature: Literal["answer", "probability"] = Field(
        default="answer",
        description="value in the reward: the yes/no answer, or P(yes) itself as for an alignment score",
    )

    @property
    def holds_prompt(self) -> bool:
        """Whether the text depends on the clip's prompt."""
        return PROMPT_PLACEHOLDER in self.text

    def ask(self, prompt: str) -> str:
        """Return the text with the prompt filled in."""
        return self.text.replace(PROMPT_PLACEHOLDER, prompt)


class SubDimension(_Frozen):
    """Questions about one aspect, and their answers for each human grade of the aspect."""

    name: str = Field(min_length=1)
    dimension: str = Field(min_length=1)
    questions: tuple[Question, ...] = Field(min_length=1)
    grades: dict[str, tuple[bool | None, ...]] = Field(
        default_factory=dict,
        description="grade -> yes/no for each question in order; null if the grade does not answer a question",
    )

    @cached_property
    def scale(self) -> dict[str, tuple[bool | None, ...]]:
        """Possible grades by people, best first, and their answers.

        The grades of the map (numbers in descending order, others in file order); without a map, yes and no for a
        single question and empty for several.
        """
        if self.grades and all(_NUMBER.fullmatch(grade) for grade in self.grades):
            return {grade: self.grades[grade] for grade in sorted(self.grades, key=float, reverse=True)}
        return self.grades or ({"yes": (True,), "no": (False,)} if len(self.questions) == 1 else {})


class Checklist(_Frozen):
    """A named, ordered set of questions for videos or images."""

    name: str = Field(min_length=1)
    modality: Literal["video", "image"]
    sub_dimensions: tuple[SubDimension, ...] = Field(min_length=1)

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """All questions in file order."""
        return tuple(question for sub in self.sub_dimensions for question in sub.questions)

    @cached_property
    def question_ids(self) -> list[str]:
        """Identifiers of all questions in file order."""
        return [question.question_id for question in self.questions]

    @cached_property
    def dimensions(self) -> list[str]:
        """Names of the dimensions in order of first appearance."""
        return list(dict.fromkeys(sub.dimension for sub in self.sub_dimensions))

    @cached_property
    def hash(self) -> str:
        """Content hash of the questions and their order, without the name and the grade maps."""
        content = [self.modality, [question.model_dump(mode="json") for question in self.questions]]
        return content_hash("checklist", json.dumps(content, sort_keys=True, ensure_ascii=False))

    @cached_property
    def graded(self) -> tuple[SubDimension, ...]:
        """Sub-dimensions that a person can grade: those with a :attr:`SubDimension.scale`."""
        return tuple(sub for sub in self.sub_dimensions if sub.scale)

    def questions_of(self, dimension: str) -> list[Question]:
        """Questions of a dimension in order. Raises :class:`InputError` for an unknown dimension."""
        if dimension not in self.dimensions:
            raise InputError(
                f"checklist '{self.name}' has no dimension '{dimension}'",
                remedy=f"Use one of: {', '.join(self.dimensions)}",
            )
        return [question for question in self.questions if question.dimension == dimension]

    def question(self, question_id: str) -> Question:
        """Return the question with this identifier. Raises :class:`InputError` if it is unknown."""
        for question in self.questions:
            if question.question_id == question_id:
                return question
        raise InputError(
            f"checklist '{self.name}' has no question '{question_id}'", remedy="Use an identifier of the checklist"
        )

    def gates_of(self, question_id: str) -> list[str]:
        """Gates of a question, nearest first; gates can have gates."""
        by_id = {question.question_id: question for question in self.questions}
        chain: list[str] = []
        gate = by_id[question_id].gate
        while gate is not None:
            chain.append(gate)
            gate = by_id[gate].gate
        return chain

    def answers_from_grades(self, grades: Mapping[str, object]) -> dict[str, bool]:
        """Return the yes/no answers of human grades (sub-dimension -> grade, as in VisionRewardDB).

        Case, spaces and underscores of names do not matter. Unknown sub-dimensions and those without a grade are
        ignored; an unknown grade raises :class:`InputError`.
        """
        given = {plain_name(name): grade for name, grade in grades.items()}
        answers: dict[str, bool] = {}
        for sub in self.sub_dimensions:
            found = given.get(plain_name(sub.name))
            if found is None or not sub.grades:
                continue
            grade = grade_key(found)
            if grade not in sub.grades:
                raise InputError(
                    f"grade '{found}' is not a grade of sub-dimension '{sub.name}'",
                    remedy=f"Use one of {', '.join(sub.grades)}, or extend 'grades' in the checklist",
                    field=sub.name,
                )
            for question, answer in zip(sub.questions, sub.grades[grade], strict=True):
                if answer is not None:
                    answers[question.question_id] = answer
        return answers


def plain_name(name: str) -> str:
    """Return a sub-dimension's name for comparisons, without case, spaces and underscores."""
    return name.casefold().replace("_", "").replace(" ", "")


def grade_key(grade: object) -> str:
    """Return a grade as a map key: 3, 3.0, '3' and '3.0' (from a table with gaps) are equal."""
    text = str(grade).strip()
    return str(int(float(text))) if re.fullmatch(r"[+-]?\d+\.0+", text) else text
