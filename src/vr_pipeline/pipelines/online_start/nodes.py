"""Nodes of online_start."""

from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.pipelines.video_generation.nodes import prompts_of_splits
from vr_pipeline.training.checkpoint_reward import ChecklistParts, CheckpointReward, prompt_rows
from vr_pipeline.training.conditions import plan_conditions
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.online import OnlineParameters
from vr_pipeline.vlm.config import ChecklistJudgeParameters
from vr_pipeline.work import WorkPlan


def encode_online_prompts(
    filtered_prompts: pd.DataFrame,
    generator: GeneratorParameters,
    dpo_training: DpoTrainingParameters,
    parameters: OnlineParameters,
) -> WorkPlan:
    """Encode the prompts of all rounds once."""
    prompts = prompts_of_splits(filtered_prompts, parameters.splits, "online_mpo.splits")
    needed = prompts["prompt_id"].tolist()
    return plan_conditions(prompts, needed, dpo_training.trained(generator), dpo_training.shard_size)


def describe_round_reward(
    filtered_prompts: pd.DataFrame,
    checklist: Checklist,
    reward_weights: dict[str, Any],
    judge: ChecklistJudgeParameters,
    checklist_inference: ChecklistInferenceParameters,
) -> dict[str, Any]:
    """Describe the reward by which the checkpoints of all rounds are judged, with all prompts they may be judged on."""
    parts = ChecklistParts(checklist=checklist, weights=reward_weights, judge=judge, judging=checklist_inference)
    return CheckpointReward(prompts=prompt_rows(filtered_prompts), reward=parts).model_dump(mode="json")
