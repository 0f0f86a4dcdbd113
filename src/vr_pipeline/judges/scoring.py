"""Rewards of single files: what a judge says of them, weighed, and which questions moved the score most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.linear import RewardWeights, dimension_scores, encoded_answers, score
from vr_pipeline.video.read import VideoReadError, read_clip

if TYPE_CHECKING:
    from vr_pipeline.judges.alignment import Alignment
    from vr_pipeline.judges.contract import Judge


@dataclass(frozen=True, eq=False)
class ScoredFile:
    """One judged file.

    Attributes:
        path: the file.
        total: its reward.
        dimensions: reward by dimension.
        p_yes: question_id -> probability of yes.
        gated: questions that a gate switched off.
        contributions: question_id -> weight times encoded answer: the parts of the total.
        outside_mass: median probability on tokens other than yes and no.
        frames: numbers of the frames that were judged.
    """

    path: Path
    total: float
    dimensions: dict[str, float]
    p_yes: dict[str, float]
    gated: list[str]
    contributions: dict[str, float]
    outside_mass: float
    frames: list[int]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {
            "path": str(self.path),
            "total": self.total,
            "dimensions": self.dimensions,
            "p_yes": self.p_yes,
            "gated": self.gated,
            "contributions": self.contributions,
            "median_outside_mass": self.outside_mass,
            "frames": self.frames,
        }


def equal_weights(checklist: Checklist) -> RewardWeights:
    """Every weighted question counts the same, summing to 1; used where no weights were fitted yet."""
    questions = [question.question_id for question in checklist.questions if question.weighted]
    return RewardWeights(
        question_ids=tuple(questions),
        weights=np.full(len(questions), 1.0 / len(questions)),
        checklist_hash=checklist.hash,
    )


def read_weights(path: Path) -> RewardWeights:
    """Weights from a file of the pipeline weight_regression. Raises :class:`InputError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"the weights are not valid JSON ({error})", remedy="Give a file that weight_regression wrote", file=path
        ) from None
    try:
        return RewardWeights.from_json(content)
    except InputError as error:
        raise InputError(error.problem, remedy=error.remedy, file=path, field=error.field) from error


def check_weights(weights: RewardWeights, checklist: Checklist) -> None:
    """Refuses weights of another checklist. Raises :class:`InputError`."""
    if weights.checklist_hash and weights.checklist_hash != checklist.hash:
        raise InputError(
            "the weights were fitted with another checklist",
            remedy="Use the checklist they were fitted with, or run 'kedro run --pipeline=weight_regression' again",
            field="checklist_hash",
        )


def score_file(
    judge: Judge,
    path: Path,
    prompt: str,
    checklist: Checklist,
    weights: RewardWeights,
    alignment: Alignment | None = None,
) -> ScoredFile:
    """Asks the whole checklist about one file.

    Raises:
        VideoReadError: the file cannot be read.
    """
    texts = [question.text for question in checklist.questions]
    p_yes, outside, indices = ask_file(judge, path, texts, prompt, alignment)
    by_id = dict(zip(checklist.question_ids, p_yes.tolist(), strict=True))
    off = checklist.switched_off({question: value > 0.5 for question, value in by_id.items()})
    whole = {question.question_id for question in checklist.questions if question.feature == "probability"}
    features = np.array(
        [
            np.nan
            if off[question]
            else by_id[question]
            if weights.answers == "probability" or question in whole
            else float(by_id[question] > 0.5)
            for question in weights.question_ids
        ]
    )
    parts = encoded_answers(features, weights) * weights.weights
    by_dimension = dimension_scores(features[None], weights, checklist).iloc[0]
    return ScoredFile(
        path=path,
        total=float(score(features, weights)),
        dimensions={str(name).removeprefix("dim_"): float(value) for name, value in by_dimension.items()},
        p_yes=by_id,
        gated=[question for question in checklist.question_ids if off[question]],
        contributions={question: float(part) for question, part in zip(weights.question_ids, parts, strict=True)},
        outside_mass=float(np.median(outside)),
        frames=indices,
    )


def ask_file(
    judge: Judge, path: Path, questions: Sequence[str], prompt: str, alignment: Alignment | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[int]]:
    """Probabilities of yes and outside masses of questions about one file, and the frames that were shown.

    Raises:
        VideoReadError: the file cannot be read.
    """
    frames, indices, information = read_clip(path, num_frames=judge.num_frames, fps=judge.frames_per_second)
    rate = information.fps * len(indices) / max(information.num_frames, 1) or 1.0
    try:
        p_yes, outside = judge.answer([frames], questions, [prompt], frames_per_second=[rate])
    except ValueError as error:
        raise VideoReadError(str(error), remedy="Give a file of another size", file=path) from error
    if alignment is not None:
        alignment.replace(p_yes, outside, [frames], [prompt], [path.name])
    return p_yes[0], outside[0], indices


def movers(scored: ScoredFile, weights: RewardWeights, count: int) -> list[tuple[str, float]]:
    """Questions that moved the total most, against an undecided answer (one half) to each; largest first."""
    undecided = encoded_answers(np.full(len(weights.question_ids), 0.5), weights) * weights.weights
    moved = {
        question: scored.contributions[question] - float(base)
        for question, base in zip(weights.question_ids, undecided, strict=True)
        if question not in scored.gated
    }
    return sorted(moved.items(), key=lambda item: (-abs(item[1]), item[0]))[:count]


def differences(first: ScoredFile, second: ScoredFile, count: int) -> list[tuple[str, float]]:
    """Questions that set two files apart most: first minus second; largest first."""
    gaps = {
        question: first.contributions[question] - second.contributions[question] for question in first.contributions
    }
    return sorted(gaps.items(), key=lambda item: (-abs(item[1]), item[0]))[:count]
