"""Two halves of a checklist's questions: one for the reward, and one for a reward that the training does not use."""

from dataclasses import replace
from typing import Any

import numpy as np

from vr_pipeline.checklist.schema import Checklist, Question
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.checklist.weights import RewardWeights

OTHER_HALF = "other_half"
"""Key of the other half's weights in the document of the reward's weights, and name of the hold-out."""


def question_halves(checklist: Checklist) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the questions of the reward and those of the hold-out, each in the checklist's order.

    Whole sub-dimensions are dealt in turn, by a hash of their first question by name, since the graded questions of
    one have related answers. A dimension of one sub-dimension is dealt by question. So every dimension of two weighted
    questions or more is in both halves.

    Raises:
        InputError: there are fewer than two weighted questions.
    """
    sides: dict[str, int] = {}
    turn = 0
    for dimension in checklist.dimensions:
        weighted = [question for question in checklist.questions_of(dimension) if question.weighted]
        parts: dict[str, list[Question]] = {}
        for question in weighted:
            parts.setdefault(question.sub_dimension, []).append(question)
        units = list(parts.values()) if len(parts) > 1 else [[question] for question in weighted]
        names = sorted((sorted(question.question_id for question in unit) for unit in units), key=_draw)
        for unit in names:
            sides |= dict.fromkeys(unit, turn % 2)
            turn += 1
    if len(sides) < 2:
        raise InputError(
            f"checklist '{checklist.name}' has too few weighted questions for two halves",
            remedy="set weight_regression.questions to all",
            field="weight_regression.questions",
        )
    halves = [tuple(name for name in checklist.question_ids if sides.get(name) == side) for side in (0, 1)]
    return halves[0], halves[1]


def with_left_out(weights: RewardWeights, question_ids: tuple[str, ...]) -> RewardWeights:
    """Return weights of a half as weights of all questions, those of the other half removed."""
    place = np.array([question_ids.index(question) for question in weights.question_ids], dtype=np.int64)
    arrays: dict[str, Any] = {}
    for name, rest in (("weights", 0.0), ("ci_low", np.nan), ("ci_high", np.nan), ("removed", True)):
        arrays[name] = np.full(len(question_ids), rest)
        arrays[name][place] = getattr(weights, name)
    gone = [question for question in question_ids if question not in weights.question_ids]
    left_out = [{"step": 0, "question_id": name, "weight": 0.0, "reason": "in the other half"} for name in gone]
    removals = (*left_out, *weights.removals)
    return replace(weights, question_ids=question_ids, removals=removals, **arrays)


def _draw(names: list[str]) -> str:
    return content_hash("question half", names[0])
