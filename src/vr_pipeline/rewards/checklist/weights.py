"""Weights of a checklist's questions, and their file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.statistics.labels import FloatArray

Encoding = Literal["zero_one", "plus_minus"]
AnswerKind = Literal["probability", "binary"]


@dataclass(frozen=True, eq=False)
class RewardWeights:
    """Weights of a checklist's questions, with intervals and facts about the fit.

    Attributes:
        question_ids: the questions, in the order of the columns of an answer array.
        weights: one weight per question; 0 if ``removed``.
        ci_low: lower end of the 95 % interval of each weight over prompts, NaN if there is none, with the reason in
            ``statistics["no_interval"]``.
        ci_high: upper end.
        removed: questions without weight (negative, or the same within every pair).
        encoding: ``zero_one`` (yes 1, no 0, the paper) or ``plus_minus`` (yes 1, no -1, the public code); gated
            questions count 0 in both.
        answers: kind of the fitted answers: probabilities of yes, or answers cut at one half; clips must be scored
            with the same kind.
        checklist_hash: content hash of the checklist.
        as_is: features that ignore the encoding, such as the public code's alignment score.
        removals: one record per removed question: ``step``, ``question_id``, ``weight`` when removed, ``reason``.
        statistics: facts about the fit (numbers of pairs, ties, penalty, log loss, accuracy, warnings).
        intercept: always 0, so that swapping the clips of a pair swaps the preference.
    """

    question_ids: tuple[str, ...]
    weights: FloatArray
    ci_low: FloatArray | None = None
    ci_high: FloatArray | None = None
    removed: npt.NDArray[np.bool_] | None = None
    encoding: Encoding = "zero_one"
    answers: AnswerKind = "probability"
    checklist_hash: str = ""
    as_is: tuple[str, ...] = ()
    removals: tuple[dict[str, Any], ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)
    intercept: float = 0.0

    def __post_init__(self) -> None:
        ids = tuple(str(question) for question in self.question_ids)
        if len(set(ids)) != len(ids):
            twice = next(question for question in ids if ids.count(question) > 1)
            remedy = "Give every question one weight"
            raise InputError(f"question '{twice}' has two weights", remedy=remedy, field="question_ids")
        object.__setattr__(self, "question_ids", ids)
        defaults: dict[str, Any] = {"ci_low": np.nan, "ci_high": np.nan, "removed": False}
        for name in ("weights", "ci_low", "ci_high", "removed"):
            value = getattr(self, name)
            kind = np.bool_ if name == "removed" else np.float64
            array: npt.NDArray[Any] = (
                np.full(len(ids), defaults[name], kind) if value is None else np.array(value, dtype=kind)
            )
            if array.shape != (len(ids),):
                problem = f"{array.size} values for {len(ids)} questions"
                raise InputError(problem, remedy="Give one value per question", field=name)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if not np.isfinite(self.weights).all():
            question = ids[int(np.flatnonzero(~np.isfinite(self.weights))[0])]
            raise InputError(
                f"the weight of question '{question}' is not a finite number",
                remedy="Fit the weights again or correct the file",
                field="weights",
            )
        for name, known in (("encoding", get_args(Encoding)), ("answers", get_args(AnswerKind))):
            if getattr(self, name) not in known:
                remedy = f"Use {' or '.join(known)}"
                raise InputError(f"unknown {name} '{getattr(self, name)}'", remedy=remedy, field=name)
        if self.intercept != 0.0:
            remedy = "Fit without one: it cancels within a pair"
            raise InputError("the reward has an intercept", remedy=remedy, field="intercept")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RewardWeights) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.question_ids, self.weights.tobytes(), self.checklist_hash))

    @property
    def kept(self) -> tuple[str, ...]:
        """Questions with weight, in order."""
        assert self.removed is not None
        return tuple(question for question, gone in zip(self.question_ids, self.removed, strict=True) if not gone)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-compatible dictionary, the inverse of :meth:`from_json`."""
        assert self.ci_low is not None
        assert self.ci_high is not None
        assert self.removed is not None
        return {
            "questions": {
                question: {
                    "weight": float(self.weights[i]),
                    "ci_low": _number_or_none(self.ci_low[i]),
                    "ci_high": _number_or_none(self.ci_high[i]),
                    "removed": bool(self.removed[i]),
                }
                for i, question in enumerate(self.question_ids)
            },
            "intercept": 0.0,
            "encoding": self.encoding,
            "answers": self.answers,
            "checklist_hash": self.checklist_hash,
            **({"as_is": list(self.as_is)} if self.as_is else {}),
            "removals": [dict(removal) for removal in self.removals],
            "statistics": dict(self.statistics),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RewardWeights:
        """Return the weights in a dictionary written by :meth:`to_json`.

        Raises:
            InputError: a key is missing or a value is invalid.
        """
        try:
            questions = document["questions"]
            return cls(
                question_ids=tuple(questions),
                weights=np.array([entry["weight"] for entry in questions.values()], dtype=float),
                ci_low=np.array([_none_to_nan(entry.get("ci_low")) for entry in questions.values()], dtype=float),
                ci_high=np.array([_none_to_nan(entry.get("ci_high")) for entry in questions.values()], dtype=float),
                removed=np.array([entry.get("removed", False) for entry in questions.values()], dtype=bool),
                encoding=document.get("encoding", "zero_one"),
                answers=document.get("answers", "probability"),
                checklist_hash=document.get("checklist_hash", ""),
                as_is=tuple(document.get("as_is", ())),
                removals=tuple(document.get("removals", ())),
                statistics=dict(document.get("statistics", {})),
                intercept=float(document.get("intercept", 0.0)),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(
                f"these are not reward weights ({type(error).__name__}: {error})",
                remedy="Run the pipeline weight_regression again, or give a file that it wrote",
                field="reward_weights",
            ) from error


def equal_weights(checklist: Checklist) -> RewardWeights:
    """Return equal weights that add up to 1, for use without a fit."""
    questions = [question.question_id for question in checklist.questions if question.weighted]
    return RewardWeights(
        question_ids=tuple(questions),
        weights=np.full(len(questions), 1.0 / len(questions)),
        checklist_hash=checklist.hash,
    )


def given_weights(
    weights: Mapping[str, float],
    checklist: Checklist,
    *,
    encoding: Encoding = "zero_one",
    answers: AnswerKind = "binary",
) -> RewardWeights:
    """Return weights that somebody chose instead of fitting them.

    Args:
        weights: by question; the checklist's other weighted questions are removed.
        checklist: the questions.
        encoding: values of yes and no.
        answers: what the weights multiply.

    Raises:
        InputError: a question is not one of the checklist that has a weight.
    """
    questions = [question.question_id for question in checklist.questions if question.weighted]
    if unknown := sorted(set(weights) - set(questions)):
        raise InputError(
            f"the checklist has no question '{unknown[0]}' with a weight",
            remedy=f"name some of its questions: {', '.join(questions)}",
            field=f"weight_regression.given.{unknown[0]}",
        )
    left_out = [question for question in questions if question not in weights]
    reason = "not named in weight_regression.given"
    return RewardWeights(
        question_ids=tuple(questions),
        weights=np.array([weights.get(question, 0.0) for question in questions]),
        removed=np.array([question not in weights for question in questions]),
        encoding=encoding,
        answers=answers,
        checklist_hash=checklist.hash,
        removals=tuple({"step": 0, "question_id": name, "weight": 0.0, "reason": reason} for name in left_out),
        statistics={"warnings": [], "given": True},
    )


def read_weights(path: Path) -> RewardWeights:
    """Read the weights file of the pipeline weight_regression. Raises :class:`InputError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"the weights are not valid JSON ({error})", remedy="Give a file that weight_regression wrote", file=path
        ) from None
    try:
        return RewardWeights.from_json(content)
    except InputError as error:
        raise error.at(file=path) from error


def _number_or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _none_to_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
