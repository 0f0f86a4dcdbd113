"""What the checkpoints of all trainings are judged by, as one document: the reward and the prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.vlm.config import JudgeParameters

if TYPE_CHECKING:
    from vr_pipeline.rewards.contract import RewardModel


class ChecklistParts(BaseModel):
    """A checklist reward by its parts.

    Attributes:
        checklist: the judge's questions.
        weights: their weights.
        judge: who answers.
        judging: how it is asked.
    """

    checklist: Checklist
    weights: dict[str, Any]
    judge: JudgeParameters
    judging: ChecklistInferenceParameters

    def model(self) -> RewardModel:
        """Return the reward."""
        from vr_pipeline.rewards.checklist.model import ChecklistReward
        from vr_pipeline.rewards.checklist.weights import RewardWeights

        return ChecklistReward(self.checklist, RewardWeights.from_json(self.weights), self.judge, self.judging)


class CheckpointReward(BaseModel):
    """A reward, and the prompts for which checkpoints make clips; JSON and back changes nothing.

    Attributes:
        prompts: rows of prompt_id, prompt and split; empty if checkpoints are not judged.
        reward: the reward: a checklist by its parts, or any that parameters name; None if there is none.
        identity: of the reward that scored the clips of the pairs; empty for any.
    """

    prompts: list[dict[str, str]]
    reward: ChecklistParts | RewardModelParameters | None = None
    identity: str = ""

    def model(self) -> RewardModel | None:
        """Return the reward; None if there is none.

        Raises:
            InputError: it is another than the one that scored the clips of the pairs.
        """
        if self.reward is None:
            return None
        model = self.reward.model()
        if self.identity and model.identity != self.identity:
            raise InputError(
                f"the reward is another ({model.identity}) than the one that scored the clips ({self.identity})",
                remedy="run reward_scoring and pair_selection again, or put the former reward back",
                field="reward_model",
            )
        return model

    def facts(self) -> dict[str, Any]:
        """Return what the provenance of a policy says of the reward."""
        match self.reward:
            case ChecklistParts(checklist=checklist, judge=judge):
                facts = {"checklist": checklist.name, "checklist_hash": checklist.hash}
                return facts | {"judge": judge.path, "judge_revision": judge.revision}
            case RewardModelParameters():
                path = self.reward.settings.get("path")
                return {"type": self.reward.type, "path": path, "identity": self.reward.model().identity}
        return {}

    def hashes(self) -> dict[str, str]:
        """Return the content hashes of what the reward is made of, by name."""
        from vr_pipeline.training.inputs import reward_weights_hash

        match self.reward:
            case ChecklistParts(checklist=checklist, weights=weights):
                return {"reward_weights": reward_weights_hash(weights), "checklist": checklist.hash}
            case RewardModelParameters():
                return {"reward_model": self.reward.model().identity}
        return {}

    @property
    def prompt_table(self) -> pd.DataFrame:
        """The prompts as a table."""
        return pd.DataFrame(self.prompts, columns=["prompt_id", "prompt", "split"])
