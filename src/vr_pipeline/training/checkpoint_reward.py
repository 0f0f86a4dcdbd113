"""The reward and the prompts by which the checkpoints of all trainings are judged, as one document."""

from typing import Any

import pandas as pd
from pydantic import BaseModel

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import IMAGE
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.rewards.checklist.halves import OTHER_HALF
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.training.config import ValidationParameters
from vr_pipeline.training.inputs import reward_weights_hash
from vr_pipeline.vlm.config import JudgeParameters


class ChecklistParts(BaseModel):
    """A checklist reward by its parts: questions, their weights, the judge, and how it is asked."""

    checklist: Checklist
    weights: dict[str, Any]
    judge: JudgeParameters
    judging: ChecklistInferenceParameters

    def model(self) -> RewardModel:
        """Return the reward."""
        return ChecklistReward(self.checklist, RewardWeights.from_json(self.weights), self.judge, self.judging)

    def other_half(self) -> RewardModel | None:
        """Return the reward of the questions that this one does not use; None if it uses all."""
        if OTHER_HALF not in self.weights:
            return None
        return self.model_copy(update={"weights": self.weights[OTHER_HALF]}).model()


def prompt_rows(prompts: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return prompts as rows for :class:`CheckpointReward`."""
    columns = ["prompt_id", "prompt", "split", *([IMAGE] if IMAGE in prompts else [])]
    return prompts[columns].to_dict("records")


class CheckpointReward(BaseModel):
    """A reward, and the prompts for which checkpoints make clips; JSON and back changes nothing.

    Attributes:
        prompts: rows of prompt_id, prompt, split, and image if clips start from images; empty if checkpoints are not
            judged.
        reward: the reward: a checklist by its parts, or any that parameters name; None if there is none.
        identity: of the reward that scored the clips of the pairs; empty for any.
    """

    prompts: list[dict[str, str]]
    reward: ChecklistParts | RewardModelParameters | None = None
    identity: str = ""

    def model(self) -> RewardModel | None:
        """Return the reward; None if there is none.

        Raises:
            InputError: it differs from the one that scored the clips of the pairs.
        """
        if self.reward is None:
            return None
        model = self.reward.model()
        if self.identity and model.identity != self.identity:
            raise InputError(
                f"the reward ({model.identity}) differs from the one that scored the clips ({self.identity})",
                remedy="run reward_scoring and pair_selection again, or restore the former reward",
                field="reward_model",
            )
        return model

    def hold_outs(self, settings: ValidationParameters) -> dict[str, RewardModel]:
        """Return the rewards that the training does not use, by name.

        Raises:
            InputError: one cannot be loaded, or the reward uses all questions and a half is to be held out.
        """
        found = {name: other.model() for name, other in settings.hold_outs.items() if other}
        if settings.hold_out_questions:
            other = self.reward.other_half() if isinstance(self.reward, ChecklistParts) else None
            if other is None:
                raise InputError(
                    "there is no reward of the other half of the questions to hold out",
                    remedy="set weight_regression.questions to half (with the checklist's reward), and run "
                    "weight_regression and all later pipelines again; or set hold_out_questions to false",
                    field="dpo_training.validation.hold_out_questions",
                )
            found[OTHER_HALF] = other
        return found

    def facts(self) -> dict[str, Any]:
        """Return facts about the reward for the provenance of a policy."""
        match self.reward:
            case ChecklistParts(checklist=checklist, judge=judge):
                facts = {"checklist": checklist.name, "checklist_hash": checklist.hash}
                return facts | {"judge": judge.path, "judge_revision": judge.revision}
            case RewardModelParameters():
                path = self.reward.settings.get("path")
                return {"type": self.reward.type, "path": path, "identity": self.reward.model().identity}
        return {}

    def hashes(self) -> dict[str, str]:
        """Return the content hashes of the reward's parts, by name."""
        match self.reward:
            case ChecklistParts(checklist=checklist, weights=weights):
                return {"reward_weights": reward_weights_hash(weights), "checklist": checklist.hash}
            case RewardModelParameters():
                return {"reward_model": self.reward.model().identity}
        return {}

    @property
    def prompt_table(self) -> pd.DataFrame:
        """The prompts as a table."""
        columns = ["prompt_id", "prompt", "split", *([IMAGE] if any(IMAGE in row for row in self.prompts) else [])]
        return pd.DataFrame(self.prompts, columns=columns)
