"""What the checkpoints of all trainings are judged by, as one document: the reward and the prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.vlm.config import JudgeParameters

if TYPE_CHECKING:
    from vr_pipeline.rewards.contract import RewardModel


class CheckpointReward(BaseModel):
    """A reward by its parts, and the prompts for which checkpoints make clips; JSON and back changes nothing.

    Attributes:
        prompts: rows of prompt_id, prompt and split; empty if checkpoints are not judged.
        checklist: the judge's questions.
        weights: their weights.
        judge: who answers.
        judging: how it is asked.
    """

    prompts: list[dict[str, str]]
    checklist: Checklist
    weights: dict[str, Any]
    judge: JudgeParameters
    judging: ChecklistInferenceParameters

    def model(self) -> RewardModel:
        """Return the reward."""
        from vr_pipeline.rewards.checklist.model import ChecklistReward
        from vr_pipeline.rewards.checklist.weights import RewardWeights

        return ChecklistReward(self.checklist, RewardWeights.from_json(self.weights), self.judge, self.judging)

    @property
    def prompt_table(self) -> pd.DataFrame:
        """The prompts as a table."""
        return pd.DataFrame(self.prompts, columns=["prompt_id", "prompt", "split"])
