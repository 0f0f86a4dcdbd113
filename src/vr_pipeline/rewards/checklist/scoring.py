"""Rewards of single files: what a judge says of them, weighed, and which questions moved the score most."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.judges.answers import about_file, answer_file, ask, show_clip
from vr_pipeline.rewards.checklist.linear import FloatArray, RewardWeights, encoded_answers
from vr_pipeline.rewards.checklist.tables import answers_matrix, probability_questions, reward_table

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
        visionreward_score: VisionReward's published score, the mean of the weighed answers, whose sum is the total;
            None where the weights are not the published ones.
    """

    path: Path
    total: float
    dimensions: dict[str, float]
    p_yes: dict[str, float]
    gated: list[str]
    contributions: dict[str, float]
    outside_mass: float
    frames: list[int]
    visionreward_score: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        public = {} if self.visionreward_score is None else {"visionreward_score": self.visionreward_score}
        return {
            "path": str(self.path),
            "total": self.total,
            **public,
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
    """Reward of one file, by the steps of the pipeline: its answers, then the table of rewards.

    Raises:
        VideoReadError: the file cannot be read.
        InputError: the judge cannot take it, or gives no numbers.
    """
    answers, frames = answer_file(judge, path, prompt, checklist, alignment)
    features, rewards = rewards_of_file(answers, checklist, weights)
    parts = encoded_answers(features, weights) * weights.weights
    return ScoredFile(
        path=path,
        total=rewards["total"],
        dimensions={name.removeprefix("dim_"): value for name, value in rewards.items() if name.startswith("dim_")},
        p_yes=dict(zip(answers["question_id"], answers["p_yes"].tolist(), strict=True)),
        gated=list(answers.loc[answers["gated"], "question_id"]),
        contributions={question: float(part) for question, part in zip(weights.question_ids, parts, strict=True)},
        outside_mass=float(answers["outside_mass"].median()),
        frames=frames,
    )


def rewards_of_clip(
    judge: Judge,
    path: Path,
    prompt: str,
    checklist: Checklist,
    weights: RewardWeights,
    alignment: Alignment | None = None,
    *,
    video_id: str | None = None,
) -> dict[str, float]:
    """Rewards of one file, ``total`` and ``dim_<name>``: the numbers that the pipeline gives this clip.

    Raises:
        VideoReadError: the file cannot be read.
        InputError: the judge cannot take it, or gives no numbers.
    """
    answers, _ = answer_file(judge, path, prompt, checklist, alignment, video_id=video_id)
    return rewards_of_file(answers, checklist, weights)[1]


def rewards_of_file(
    answers: pd.DataFrame, checklist: Checklist, weights: RewardWeights
) -> tuple[FloatArray, dict[str, float]]:
    """What is weighed of one file's answers, and its rewards: ``total`` and ``dim_<name>``.

    Args:
        answers: what :func:`~vr_pipeline.judges.answers.answer_file` gives.
        checklist: the questions.
        weights: the linear reward.
    """
    name = str(answers["video_id"].iloc[0])
    index = pd.DataFrame({"video_id": [name], "prompt_id": [""], "sample_index": [0]})
    always = probability_questions(checklist)
    matrix = answers_matrix(answers, [name], weights.question_ids, kind=weights.answers, always_probability=always)
    row = reward_table(answers, index, checklist, weights).iloc[0]
    return matrix[0], {str(key): float(row[key]) for key in row.index if key == "total" or str(key).startswith("dim_")}


def ask_file(judge: Judge, path: Path, question: str, prompt: str) -> tuple[float, float, list[int]]:
    """Probability of yes and outside mass of one question about one file, and the frames that were shown.

    Raises:
        VideoReadError: the file cannot be read.
        InputError: the judge cannot take it, or gives no numbers.
    """
    clip = show_clip(judge, path, path.name, prompt)
    (answer,) = ask(judge, None, [clip], [question])
    if isinstance(answer, Exception):
        raise about_file(answer, path)
    return float(answer[0][0]), float(answer[1][0]), clip.indices


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
