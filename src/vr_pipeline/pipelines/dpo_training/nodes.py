"""Nodes of dpo_training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.datasets.policy import PolicyDataset
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import sampling_identity
from vr_pipeline.generators.policy import Policy, Start
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.pipelines.recipes import Recipes, by_recipe
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.runtime.live_curves import write_row
from vr_pipeline.training.checkpoint_reward import ChecklistParts, CheckpointReward, prompt_rows
from vr_pipeline.training.conditions import plan_conditions
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.held_out import HeldOutPairs
from vr_pipeline.training.inputs import contents_hash, input_hashes
from vr_pipeline.training.judged import no_validation, validation_prompts
from vr_pipeline.training.latents import plan_latents
from vr_pipeline.training.model_card import training_facts
from vr_pipeline.training.policies import pair_data, train_policy_on_pairs
from vr_pipeline.training.table import HELD_OUT, PAIR, clips_of, compared, join_pairs, judged_clips, prompts_of
from vr_pipeline.training.validation import CheckpointValidation, PolicyFiles
from vr_pipeline.vlm.config import ChecklistJudgeParameters
from vr_pipeline.work import WorkPlan

logger = logging.getLogger(__name__)


def join_training_pairs(
    filtered_prompts: pd.DataFrame,
    video_index: pd.DataFrame,
    rewards: pd.DataFrame,
    parameters: DpoTrainingParameters,
    *pairs: pd.DataFrame,
    recipes: Recipes,
) -> pd.DataFrame:
    """Join the pairs of all recipes with their prompts, clips and rewards.

    A recipe whose objective learns from single clips also gets all judged clips of training prompts.
    """
    tables = by_recipe(recipes, pairs)
    for name, table in tables.items():
        if parameters.for_recipe(name).training.objective.of_clips:
            clips = judged_clips(rewards, filtered_prompts)
            tables[name] = pd.concat([table[PAIR], clips[PAIR]], ignore_index=True)
    return join_pairs(tables, dict.fromkeys(tables, rewards), filtered_prompts, video_index)


def encode_latents(
    videos: Any, training_pairs: pd.DataFrame, generator: GeneratorParameters, parameters: DpoTrainingParameters
) -> WorkPlan:
    """Encode the clips of all training pairs once, for every training that uses them."""
    needed = [name for side in ("winner", "loser") for name in training_pairs[f"{side}_video_id"] if name]
    return plan_latents(videos, clips_of(training_pairs), needed, parameters.trained(generator), parameters.shard_size)


def encode_prompts(
    training_pairs: pd.DataFrame, generator: GeneratorParameters, parameters: DpoTrainingParameters
) -> WorkPlan:
    """Encode the prompts of all training pairs once, for every training that uses them."""
    needed = training_pairs["prompt_id"].tolist()
    return plan_conditions(prompts_of(training_pairs), needed, parameters.trained(generator), parameters.shard_size)


def describe_checkpoint_reward(
    filtered_prompts: pd.DataFrame,
    checklist: Checklist,
    reward_weights: dict[str, Any],
    judge: ChecklistJudgeParameters,
    checklist_inference: ChecklistInferenceParameters,
    parameters: DpoTrainingParameters,
) -> dict[str, Any]:
    """Describe the reward and the prompts by which the checkpoints of all trainings are judged."""
    parts = ChecklistParts(checklist=checklist, weights=reward_weights, judge=judge, judging=checklist_inference)
    return _checkpoint_reward(filtered_prompts, parts, parameters)


def name_checkpoint_reward(
    filtered_prompts: pd.DataFrame,
    reward_model: RewardModelParameters,
    parameters: DpoTrainingParameters,
    reward_description: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Name the reward and the prompts by which the checkpoints of all trainings are judged.

    Args:
        filtered_prompts: all prompts.
        reward_model: the reward.
        parameters: select the prompts.
        reward_description: of the reward that scored the clips of the pairs; None without one.
    """
    reward = None if reward_model.given is None else reward_model
    identity = str((reward_description or {}).get("identity", ""))
    return _checkpoint_reward(filtered_prompts, reward, parameters) | {"identity": identity}


def _checkpoint_reward(
    filtered_prompts: pd.DataFrame,
    reward: ChecklistParts | RewardModelParameters | None,
    parameters: DpoTrainingParameters,
) -> dict[str, Any]:
    prompts = filtered_prompts.head(0)
    if parameters.validation is not None and reward is not None:
        prompts = validation_prompts(filtered_prompts, parameters.validation)
    return CheckpointReward(prompts=prompt_rows(prompts), reward=reward).model_dump(mode="json")


def train_policy(
    training_pairs: pd.DataFrame,
    latents: Any,
    prompt_conditions: Any,
    checkpoint_reward: dict[str, Any],
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
    recipe: str,
) -> tuple[Policy, pd.DataFrame, pd.DataFrame]:
    """Train the generator on the pairs of a recipe and keep the best checkpoint."""
    pairs = training_pairs[training_pairs["recipe"] == recipe].reset_index(drop=True)
    others = training_pairs[training_pairs["recipe"] == HELD_OUT]
    reward = CheckpointReward.model_validate(checkpoint_reward)
    return train_and_validate(
        pairs, others, [latents], prompt_conditions, reward, generator, parameters.for_recipe(recipe)
    )


def train_and_validate(
    pairs: pd.DataFrame,
    others: pd.DataFrame,
    latents: Sequence[Any],
    prompt_conditions: Any,
    reward: CheckpointReward,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
    start: Start | None = None,
) -> tuple[Policy, pd.DataFrame, pd.DataFrame]:
    """Train the generator on pairs and keep the best checkpoint.

    Args:
        pairs: to train on.
        others: held-out pairs, on which checkpoints are measured if no reward judges them; may be empty.
        latents: folders of the clips' latents.
        prompt_conditions: of the prompts.
        reward: judges the checkpoints.
        generator: the original.
        parameters: of the training.
        start: with which it starts; None for the original.

    Returns:
        policy, training log and judged checkpoints.
    """
    validation, held_out, judge = None, None, reward.model()
    if judge is None and parameters.validation is not None:
        logger.warning("No reward judges the checkpoints: the policy has the weights of the last step.")
    elif judge is not None and parameters.validation is not None:

        def save(folder: Path, checkpoint: Policy) -> None:
            PolicyDataset(path=str(folder)).save(checkpoint)

        validation = CheckpointValidation(
            pairs,
            reward.prompt_table,
            judge,
            parameters,
            fill=fill_folder,
            files=PolicyFiles(save, lambda folder: PolicyDataset(path=str(folder)).load()),
            observe=write_row,
            hold_outs=reward.hold_outs(parameters.validation),
        )
    made_by = sampling_identity(generator) if parameters.training.noise == "prior" else ""
    if validation is None and len(others) and parameters.held_out_pairs:
        held_out = HeldOutPairs(pair_data(others, latents, prompt_conditions, made_by=made_by), parameters)
    data = pair_data(pairs, latents, prompt_conditions, contents_hash(pairs), made_by=made_by)
    policy, log = train_policy_on_pairs(
        data, generator, parameters, validation=validation or held_out, observe=write_row, start=start
    )
    validated = validation.table(log) if validation is not None else no_validation()
    pairs = compared(pairs)
    facts = training_facts(pairs, validated, reward.facts(), generator, parameters)
    facts["training"] = {**policy.provenance["training"], "inputs": input_hashes(pairs, reward.hashes())}
    return replace(policy, provenance=policy.provenance | facts), log, validated


def tabulate_training_curves(training_log: pd.DataFrame) -> pd.DataFrame:
    """Return the numeric columns of a training log, for a text file that DVC can plot."""
    return training_log.select_dtypes("number").sort_values("step", kind="stable")
