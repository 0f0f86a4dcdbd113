"""The reward of a file by question, and the questions with most influence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.judges.answers import ask
from vr_pipeline.judges.contract import Judge
from vr_pipeline.rewards.checklist.linear import encoded_answers
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.tables import answers_matrix, probability_questions
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.rewards.contract import RewardModel, about_file, index_of
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip


@dataclass(frozen=True, eq=False)
class ScoredFile:
    """One scored file; fields about questions are empty for rewards without questions.

    Attributes:
        path: the file.
        total: its reward.
        dimensions: reward by dimension.
        p_yes: question_id -> probability of yes.
        gated: questions that a gate switched off.
        contributions: question_id -> weight times encoded answer; they add up to the total.
        outside_mass: median probability of tokens other than yes and no.
        frames: numbers of the judged frames.
        visionreward_score: VisionReward's published score, the mean of the weighted answers; None with other weights.
        extra: other columns of the reward, such as ``outside_training``.
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
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the values for ``--json``."""
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
            **self.extra,
        }


def question_about_prompt(model: RewardModel) -> str | None:
    """Return the first question of a reward that asks about the prompt, which then must not be empty."""
    asked = model.checklist.questions if isinstance(model, ChecklistReward) else []
    return next((question.question_id for question in asked if question.holds_prompt), None)


def plain_score(model: RewardModel, path: Path, prompt: str) -> ScoredFile:
    """Score one file by any reward; raises as :func:`score_file`."""
    (row,) = model.score([path], [prompt]).to_dict("records")
    dimensions = {name: float(row.pop(f"dim_{name}")) for name in model.dimensions}
    return ScoredFile(
        path, float(row.pop("total")), dimensions, extra={str(name): value for name, value in row.items()}
    )


def score_file(model: ChecklistReward, path: Path, prompt: str) -> ScoredFile:
    """Score one file, with the contributions of its questions.

    Raises:
        VideoReadError: the file cannot be read.
        InputError: the judge cannot process it, or returns no numbers.
    """
    (one,) = score_clips(model, [sample_clip(path, prompt, model.sampling(model.loaded()))])
    if isinstance(one, InputError):
        raise one
    return one


def score_clips(model: RewardModel, clips: Sequence[SampledClip]) -> list[ScoredFile | InputError]:
    """Score sampled clips together by any reward; return the same scores as alone, or the error of each clip."""
    if isinstance(model, ChecklistReward):
        return _checklist_scores(model, clips)
    names = [clip.video_id for clip in clips]
    try:
        # Names can refer to rows of a table, so clips keep them; clips with the same name are scored one by one.
        if len(set(names)) == len(names):
            rows = model.score_sampled(clips).set_index("video_id").loc[names].to_dict("records")
            return [_named(model, clip, row) for clip, row in zip(clips, rows, strict=True)]
    except InputError as error:
        if len(clips) == 1:
            return [error]
    return [one for clip in clips for one in score_clips(model, [clip])]


def _named(model: RewardModel, clip: SampledClip, row: Mapping[Any, Any]) -> ScoredFile:
    dimensions = {name: float(row[f"dim_{name}"]) for name in model.dimensions}
    extra = {name: row[name] for name in model.extra_columns}
    return ScoredFile(clip.path or Path(), float(row["total"]), dimensions, frames=clip.indices, extra=extra)


def _checklist_scores(model: ChecklistReward, clips: Sequence[SampledClip]) -> list[ScoredFile | InputError]:
    """Ask all questions about clips, and apply the weights to all at once."""
    asked = model.look(model.loaded(), clips)
    # Positions as names: two clips may have the same name.
    seen = {str(at): rows for at, rows in enumerate(asked) if isinstance(rows, pd.DataFrame)}
    scored = {}
    if seen:
        index = index_of([replace(clips[int(name)], video_id=name) for name in seen])
        answers = model.arrange(pd.concat([rows.assign(video_id=name) for name, rows in seen.items()]), index)
        rewards = {str(row["video_id"]): row for row in model.rewards(answers, index).to_dict("records")}
        ids, always = model.weights.question_ids, probability_questions(model.checklist)
        matrix = answers_matrix(answers, list(seen), ids, kind=model.weights.answers, always_probability=always)
        parts = encoded_answers(matrix, model.weights) * model.weights.weights
        of_clip = dict(iter(answers.groupby("video_id", sort=False)))
        for name, contributions in zip(seen, parts.tolist(), strict=True):
            rows, reward = of_clip[name], rewards[name]
            scored[name] = ScoredFile(
                path=clips[int(name)].path or Path(),
                total=float(reward["total"]),
                dimensions={dimension: float(reward[f"dim_{dimension}"]) for dimension in model.dimensions},
                p_yes=dict(zip(rows["question_id"], rows["p_yes"].tolist(), strict=True)),
                gated=list(rows.loc[rows["gated"], "question_id"]),
                contributions=dict(zip(ids, contributions, strict=True)),
                outside_mass=float(rows["outside_mass"].median()),
                frames=clips[int(name)].indices,
            )
    return [
        about_file(one, clip.path) if isinstance(one, Exception) else scored[str(at)]
        for at, (one, clip) in enumerate(zip(asked, clips, strict=True))
    ]


def ask_file(judge: Judge, path: Path, question: str, prompt: str) -> tuple[float, float, list[int]]:
    """Return the probability of yes and the outside mass of one question about one file, and its judged frames.

    Raises:
        VideoReadError: the file cannot be read.
        InputError: the judge cannot process it, or returns no numbers.
    """
    clip = sample_clip(path, prompt, Sampling(judge.num_frames, judge.frames_per_second))
    (answer,) = ask(judge, None, [clip], [question])
    if isinstance(answer, Exception):
        raise about_file(answer, path)
    return float(answer[0][0]), float(answer[1][0]), clip.indices


def movers(scored: ScoredFile, weights: RewardWeights, count: int) -> list[tuple[str, float]]:
    """Return the questions with the largest change of the total against an answer of one half, largest first."""
    undecided = encoded_answers(np.full(len(weights.question_ids), 0.5), weights) * weights.weights
    moved = {
        question: scored.contributions[question] - float(base)
        for question, base in zip(weights.question_ids, undecided, strict=True)
        if question not in scored.gated
    }
    return sorted(moved.items(), key=lambda item: (-abs(item[1]), item[0]))[:count]


def differences(first: ScoredFile, second: ScoredFile, count: int) -> list[tuple[str, float]]:
    """Return the questions with the largest difference of contributions, first minus second, largest first."""
    gaps = {
        question: first.contributions[question] - second.contributions[question] for question in first.contributions
    }
    return sorted(gaps.items(), key=lambda item: (-abs(item[1]), item[0]))[:count]
