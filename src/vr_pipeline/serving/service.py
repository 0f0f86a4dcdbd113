"""A reward for a server: several threads read clips, one scores them."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.scoring import ScoredFile, movers, question_about_prompt, score_clips
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.rewards.registry import ranker_of
from vr_pipeline.serving.requests import Clip, CompareRequest, ScoreRequest, file_in
from vr_pipeline.video.clip import VideoReadError
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip


class Scoring(NamedTuple):
    """A clip to score."""

    clip: SampledClip
    top: int


class Comparison(NamedTuple):
    """Two clips of one prompt to compare."""

    first: SampledClip
    second: SampledClip


class RewardService:
    """Scores and compares the clips of requests.

    Args:
        model: the reward; loaded now.
        folder: where clips named by ``path`` lie; None for none.
        notes: what a user has to know of the reward.
        public: whether its weights are VisionReward's published ones, whose score is a mean.
    """

    def __init__(
        self, model: RewardModel, folder: Path | None = None, *, notes: Sequence[str] = (), public: bool = False
    ) -> None:
        self._model, self._folder, self._public = model, folder, public
        self._sampling: Sampling | None = model.sampling(model.loaded())
        self._ranker = ranker_of(model)
        self._about_prompt = question_about_prompt(model)
        self.about = {
            "reward": type(model).__name__,
            "identity": model.identity,
            "dimensions": list(model.dimensions),
            "notes": list(notes),
        }

    def read(self, request: ScoreRequest | CompareRequest, scratch: Path) -> Scoring | Comparison:
        """Read the clips of a request.

        Args:
            request: what is asked.
            scratch: a folder for their files, which have to stay until the answer.

        Raises:
            InputError: a clip cannot be read, or the prompt is empty where a question asks about it. The message names
                no file of this machine.
        """
        if self._about_prompt is not None and not request.prompt.strip():
            raise InputError(
                f"the prompt is empty, but question '{self._about_prompt}' asks about it",
                remedy="give the text from which the clip was generated",
                field="prompt",
            )
        if isinstance(request, ScoreRequest):
            return Scoring(self._clip(request, request.prompt, scratch, "clip"), request.top)
        first, second = (
            self._clip(getattr(request, side), request.prompt, scratch, side) for side in ("first", "second")
        )
        return Comparison(first, second)

    def _clip(self, source: Clip, prompt: str, scratch: Path, field: str) -> SampledClip:
        if source.path is not None:
            path, name = file_in(self._folder, source.path), Path(source.path).name
        else:
            # A name of its own: nothing that was scored before has it.
            name = uuid.uuid4().hex
            path = scratch / name
            path.write_bytes(source.clip or b"")
        try:
            return sample_clip(path, prompt, self._sampling, video_id=name)
        except VideoReadError as error:
            raise InputError(_without(error.problem, path), remedy=error.remedy, field=field) from error

    def answer(self, asked: Sequence[Scoring | Comparison]) -> list[dict[str, Any] | Exception]:
        """Answer a batch of requests; each gets its answer or an error."""
        clips = [one for one in asked if isinstance(one, Scoring)]
        scored = iter(score_clips(self._model, [one.clip for one in clips]) if clips else [])
        return [self._said(next(scored), one) if isinstance(one, Scoring) else self._compared(one) for one in asked]

    def _said(self, scored: ScoredFile | InputError, asked: Scoring) -> dict[str, Any] | Exception:
        if isinstance(scored, InputError):
            return _nameless(scored, asked.clip)
        if not all(map(math.isfinite, (scored.total, *scored.dimensions.values()))):
            return InputError("the reward is not finite", remedy="give another clip", field="clip")
        if self._public:
            scored = replace(scored, visionreward_score=scored.total / len(scored.contributions))
        content = scored.to_json()
        del content["path"]
        return content | {"moved": self._moved(scored, asked)}

    def _moved(self, scored: ScoredFile, asked: Scoring) -> list[dict[str, Any]]:
        """Return the questions with the largest contributions to the score; none for a reward without questions."""
        model = self._model
        if not isinstance(model, ChecklistReward):
            return []
        return [
            {
                "question": question,
                "text": model.checklist.question(question).ask(asked.clip.prompt),
                "p_yes": scored.p_yes[question],
                "moved": moved,
            }
            for question, moved in movers(scored, model.weights, asked.top)
        ]

    def _compared(self, asked: Comparison) -> dict[str, Any] | Exception:
        pair = {"first": asked.first, "second": asked.second}
        try:
            table = self._ranker.compare_group(pair, [("first", "second")], asked.first.prompt)
        except InputError as error:
            return _nameless(error, asked.first, asked.second)
        (row,) = table.to_dict("records")
        sides = {"a": "first", "b": "second", "tie": "tie"}
        renamed = {
            f"p_{sides[side]}{end}": float(row[f"p_{side}{end}"])
            for end in ("", *(f"_{name}" for name in self._model.dimensions if f"p_a_{name}" in row))
            for side in sides
        }
        read: dict[str, Any] = {name: float(row[name]) for name in ("position_bias", "outside_mass") if name in row}
        return {"better": sides[str(row["better"])], **renamed, **read}


def _nameless(error: InputError, *clips: SampledClip) -> InputError:
    problem = error.problem
    for clip in clips:
        problem = _without(problem, clip.path) if clip.path is not None else problem
    return InputError(problem, remedy=error.remedy, row=error.row, field=error.field)


def _without(text: str, path: Path) -> str:
    return text.replace(str(path), "the clip")
