"""Nodes of dpo_training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.policy import Policy
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.work import WorkPlan


def encode_latents(
    videos: Any,
    video_index: pd.DataFrame,
    preference_pairs_mpo: pd.DataFrame,
    preference_pairs_dpo: pd.DataFrame,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
) -> WorkPlan:
    """Encode the clips of all selected pairs once, for every training that uses them."""
    from vr_pipeline.training.latents import plan_latents

    pairs = pd.concat([preference_pairs_mpo, preference_pairs_dpo])
    needed = [*pairs["winner_video_id"], *pairs["loser_video_id"]]
    return plan_latents(videos, video_index, needed, parameters.trained(generator), parameters.shard_size)


def encode_prompts(
    filtered_prompts: pd.DataFrame,
    preference_pairs_mpo: pd.DataFrame,
    preference_pairs_dpo: pd.DataFrame,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
) -> WorkPlan:
    """Encode the prompts of all selected pairs once, for every training that uses them."""
    from vr_pipeline.training.conditions import plan_conditions

    needed = pd.concat([preference_pairs_mpo["prompt_id"], preference_pairs_dpo["prompt_id"]]).astype(str).tolist()
    return plan_conditions(filtered_prompts, needed, parameters.trained(generator), parameters.shard_size)


def train_policy(
    preference_pairs: pd.DataFrame,
    latents: Any,
    prompt_conditions: Any,
    rewards: pd.DataFrame,
    filtered_prompts: pd.DataFrame,
    video_index: pd.DataFrame,
    checklist: Checklist,
    reward_weights: dict[str, Any],
    judge: JudgeParameters,
    checklist_inference: ChecklistInferenceParameters,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
) -> tuple[Policy, pd.DataFrame, pd.DataFrame]:
    """Train the generator to make winners likelier than its frozen original does; keep the best checkpoint."""
    from vr_pipeline.items.filling import fill_folder
    from vr_pipeline.rewards.checklist.model import ChecklistReward
    from vr_pipeline.runtime.live_curves import write_row
    from vr_pipeline.training.inputs import contents_hash, input_hashes
    from vr_pipeline.training.model_card import training_facts
    from vr_pipeline.training.policies import pair_data, train_policy_on_pairs
    from vr_pipeline.training.validation import CheckpointValidation, no_validation

    validation = None
    if parameters.validation is not None:
        reward = ChecklistReward(checklist, RewardWeights.from_json(reward_weights), judge, checklist_inference)
        validation = CheckpointValidation(
            preference_pairs, filtered_prompts, reward, parameters, fill=fill_folder, observe=write_row
        )
    contents = contents_hash(preference_pairs, filtered_prompts, video_index)
    data = pair_data(preference_pairs, latents, prompt_conditions, rewards, contents)
    policy, log = train_policy_on_pairs(data, generator, parameters, validation=validation, observe=write_row)
    validated = validation.table(log) if validation is not None else no_validation()
    facts = training_facts(
        preference_pairs, filtered_prompts, video_index, validated, checklist, judge, generator, parameters
    )
    facts["training"] = {
        **policy.provenance["training"],
        "inputs": input_hashes(preference_pairs, reward_weights, checklist),
    }
    return replace(policy, provenance=policy.provenance | facts), log, validated


def tabulate_training_curves(training_log: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a training log as plain text of six digits, which tools that compare versions can plot."""
    return training_log.select_dtypes("number").sort_values("step", kind="stable")
