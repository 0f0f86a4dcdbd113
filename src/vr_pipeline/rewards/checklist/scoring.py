"""What made the reward of a file: its answers, weighed one by one, and which moved the score most."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vr_pipeline.judges.answers import ask
from vr_pipeline.rewards.checklist.linear import encoded_answers
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.tables import answers_matrix, probability_questions
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.rewards.contract import RewardModel, about_file, index_of
from vr_pipeline.video.sampled import Sampling, sample_clip

if TYPE_CHECKING:
    from vr_pipeline.judges.contract import Judge


@dataclass(frozen=True, eq=False)
class ScoredFile:
    """One scored file; what concerns questions is empty for rewards that ask none.

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
        said: what a reward says of the file beside that, by name, such as ``outside_training``.
    """

    path: Path
    total: float
    dimensions: dict[str, float]
    p_yes: dict[str, float] = field(default_factory=dict)
    gated: list[str] = field(default_factory=list)
    contributions: dict[str, float] = field(default_factory=dict)
    outside_mass: float = 0.0
    frames: list[int] = field(default_factory=list)
    visionreward_score: float | None = None
    said: dict[str, Any] = field(default_factory=dict)

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
            **self.said,
        }


def plain_score(model: RewardModel, path: Path, prompt: str) -> ScoredFile:
    """Score one file by any reward, by its dimensions and what else it says; raises as :func:`score_file`."""
    (row,) = model.score([path], [prompt]).to_dict("records")
    dimensions = {name: float(row.pop(f"dim_{name}")) for name in model.dimensions}
    return ScoredFile(path, float(row.pop("total")), dimensions, said={str(name): value for name, value in row.items()})


def score_file(model: ChecklistReward, path: Path, prompt: str) -> ScoredFile:
    """Score one file and keep what its reward is made of.

    Raises:
        VideoReadError: the file cannot be read.
        InputError: the judge cannot take it, or gives no numbers.
    """
    clip = sample_clip(path, prompt, model.sampling(model.loaded()))
    answers = model.measure_clip(clip)
    (row,) = model.rewards(answers, index_of([clip])).to_dict("records")
    weights, always = model.weights, probability_questions(model.checklist)
    ids = weights.question_ids
    matrix = answers_matrix(answers, [clip.video_id], ids, kind=weights.answers, always_probability=always)
    parts = encoded_answers(matrix[0], weights) * weights.weights
    return ScoredFile(
        path=path,
        total=float(row["total"]),
        dimensions={name: float(row[f"dim_{name}"]) for name in model.dimensions},
        p_yes=dict(zip(answers["question_id"], answers["p_yes"].tolist(), strict=True)),
        gated=list(answers.loc[answers["gated"], "question_id"]),
        contributions={question: float(part) for question, part in zip(ids, parts, strict=True)},
        outside_mass=float(answers["outside_mass"].median()),
        frames=clip.indices,
    )


def ask_file(judge: Judge, path: Path, question: str, prompt: str) -> tuple[float, float, list[int]]:
    """Probability of yes and outside mass of one question about one file, and the frames that were shown.

    Raises:
        VideoReadError: the file cannot be read.
        InputError: the judge cannot take it, or gives no numbers.
    """
    clip = sample_clip(path, prompt, Sampling(judge.num_frames, judge.frames_per_second))
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
