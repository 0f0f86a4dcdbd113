"""A recogniser as a reward, and the oracle's: the micro-world's second opinion on clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from pydantic import Field

from vr_pipeline.checklist import load_checklist
from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.recogniser import Recogniser
from vr_pipeline.micro_world.world import NUM_FRAMES, SIZE
from vr_pipeline.rewards.checklist.linear import dimension_scores, score
from vr_pipeline.rewards.checklist.tables import answers_matrix
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.rewards.contract import Outcome, RewardModel
from vr_pipeline.video.clip import Frames
from vr_pipeline.video.sampled import SampledClip


class RecogniserSettings(Parameters):
    """A recogniser in a file."""

    path: str = Field(description="Weights of oracle or auditor (safetensors), made by the pipeline micro_world.")
    checklist: str = Field(description="The micro-world's checklist.")


class RecogniserReward(RewardModel):
    """Rewards from a recogniser's answers and the hidden utilities; measurements have the schema ``OracleAnswers``."""

    Settings = RecogniserSettings
    recogniser_class: ClassVar[type[Recogniser]]

    def __init__(self, recogniser: Recogniser, checklist: Checklist) -> None:
        self.recogniser, self.checklist = recogniser, checklist
        self.dimensions = tuple(checklist.dimensions)
        questions = tuple(checklist.question_ids)
        values = np.array([recogniser.weights[question] for question in questions])
        self.weights = RewardWeights(questions, values, checklist_hash=checklist.hash)

    @classmethod
    def from_settings(cls, settings: RecogniserSettings, folder: Path) -> Self:
        """See :meth:`~vr_pipeline.rewards.contract.RewardModel.from_settings`."""
        return cls(cls.recogniser_class.load(folder / settings.path), load_checklist(folder / settings.checklist))

    @property
    def measured_by(self) -> tuple[str, ...]:
        """See :class:`~vr_pipeline.rewards.contract.RewardModel`."""
        arrays = sorted(self.recogniser.arrays().items())
        contents = (part for name, array in arrays for part in (name, np.ascontiguousarray(array).tobytes()))
        return (content_hash(self.kind, *contents), self.checklist.hash)

    def look(self, loaded: None, clips: Sequence[SampledClip]) -> list[Outcome]:
        """Answer the checklist's questions; clips with the same number of frames are answered together."""
        outcomes: list[Outcome] = [_not_of_this_world(clip) for clip in clips]
        lengths: dict[int, list[int]] = {}
        for at, clip in enumerate(clips):
            if _of_this_world(clip.frames) and self.recogniser.num_frames in (None, len(clip.frames)):
                lengths.setdefault(len(clip.frames), []).append(at)
        for places in lengths.values():
            frames = np.stack([_own_pixels(clips[at].frames) for at in places])
            prompts = [clips[at].prompt for at in places]
            answers = self.recogniser.probabilities(frames, prompts, self.checklist.question_ids)
            for at, p_yes in zip(places, answers, strict=True):
                outcomes[at] = pd.DataFrame({"question_id": self.checklist.question_ids, "p_yes": p_yes})
        return outcomes

    def rewards(self, measured: pd.DataFrame, index: pd.DataFrame) -> pd.DataFrame:
        """Return rewards of the answers; clips keep the order of the index."""
        there = index[index["video_id"].isin(set(measured["video_id"]))]
        columns = [name for name in ("video_id", "prompt_id", "policy") if name in there.columns]
        matrix = answers_matrix(measured, list(there["video_id"]), self.weights.question_ids)
        values = dimension_scores(matrix, self.weights, self.checklist)
        table = there[columns].reset_index(drop=True).assign(total=score(matrix, self.weights))
        return pd.concat([table, values], axis=1)


class OracleReward(RecogniserReward):
    """The oracle's reward."""

    kind = "oracle answers"
    recogniser_class = Oracle


def _of_this_world(frames: Frames) -> bool:
    """Return whether frames are squares of the micro-world's pixels, each perhaps enlarged."""
    height, width = frames.shape[1:3]
    return height == width and height % SIZE == 0


def _own_pixels(frames: Frames) -> Frames:
    """Return frames of the micro-world's size."""
    step = frames.shape[1] // SIZE
    return frames[:, ::step, ::step]


def _not_of_this_world(clip: SampledClip) -> InputError:
    frames, height, width = clip.frames.shape[:3]
    return InputError(
        f"oracle and auditor know clips of the micro-world only ({NUM_FRAMES} frames, {SIZE} x {SIZE} pixels or a "
        f"multiple), this one has {width} x {height} and {frames} frames",
        remedy="Leave them out for other clips",
        file=clip.path,
    )
