"""VisionReward's published questions and weights."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.checklist.visionreward import read_questions
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.tables import probability_questions, weighted_questions
from vr_pipeline.rewards.checklist.weights import RewardWeights


def read_visionreward(
    questions_path: str | Path, weights_path: str | Path | None = None
) -> tuple[Checklist, RewardWeights | None]:
    """Read a public question list as a checklist, and its weights.

    Args:
        questions_path: one question per line: 64 or 29 lines (video), 59 or 30 (image).
        weights_path: a JSON list, or a mapping with ``coef``; None for none (the 64-line list has none).

    Returns:
        the checklist, and weights in the encoding +1/-1 of yes/no answers (None without a file).

    Raises:
        InputError: the number of lines or weights is wrong.
    """
    checklist = read_questions(questions_path)
    return checklist, None if weights_path is None else _weights(Path(weights_path), checklist)


def _weights(path: Path, checklist: Checklist) -> RewardWeights:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("the file of weights is missing", remedy="Give its path", file=path) from None
    except ValueError as error:
        raise InputError(f"the weights are not valid JSON ({error})", remedy="Copy the file again", file=path) from None
    values = content.get("coef") if isinstance(content, Mapping) else content
    weighted = weighted_questions(checklist)
    if not isinstance(values, list) or len(values) != len(weighted):
        found = len(values) if isinstance(values, list) else "no"
        raise InputError(
            f"the file has {found} weights, but the question list needs {len(weighted)}",
            remedy="Use the weights published with this question list",
            file=path,
        )
    for at, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            problem = f"weight {at + 1} is {value!r}, not a finite number"
            raise InputError(problem, remedy="Copy the file again", file=path)
    weights = np.array(values, dtype=np.float64)
    return RewardWeights(
        question_ids=tuple(weighted),
        weights=weights,
        removed=weights == 0,
        encoding="plus_minus",
        answers="binary",
        checklist_hash=checklist.hash,
        as_is=tuple(probability_questions(checklist)),
    )
