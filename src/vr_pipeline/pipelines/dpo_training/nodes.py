"""Nodes of dpo_training."""

from __future__ import annotations

from typing import Any

import pandas as pd

from vr_pipeline.generators.contract import Policy
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.work import WorkPlan


def encode_latents(
    videos: Any,
    video_index: pd.DataFrame,
    preference_pairs_mpo: pd.DataFrame,
    preference_pairs_dpo: pd.DataFrame,
    parameters: DpoTrainingParameters,
) -> WorkPlan:
    """Encode the clips of all selected pairs once, for every training that uses them."""
    from vr_pipeline.training.latents import plan_latents

    pairs = pd.concat([preference_pairs_mpo, preference_pairs_dpo])
    needed = [*pairs["winner_video_id"], *pairs["loser_video_id"]]
    return plan_latents(videos, video_index, needed, parameters.generator, parameters.shard_size)


def encode_prompts(
    filtered_prompts: pd.DataFrame,
    preference_pairs_mpo: pd.DataFrame,
    preference_pairs_dpo: pd.DataFrame,
    parameters: DpoTrainingParameters,
) -> WorkPlan:
    """Encode the prompts of all selected pairs once, for every training that uses them."""
    from vr_pipeline.training.conditions import plan_conditions

    needed = pd.concat([preference_pairs_mpo["prompt_id"], preference_pairs_dpo["prompt_id"]]).astype(str).tolist()
    return plan_conditions(filtered_prompts, needed, parameters.generator, parameters.shard_size)


def train_policy(
    preference_pairs: pd.DataFrame,
    latents: Any,
    prompt_conditions: Any,
    rewards: pd.DataFrame,
    parameters: DpoTrainingParameters,
) -> tuple[Policy, pd.DataFrame]:
    """Train the generator to make winners likelier, and losers less likely, than its frozen original does."""
    from vr_pipeline.training.policies import train_policy_on_pairs

    return train_policy_on_pairs(preference_pairs, latents, prompt_conditions, rewards, parameters)


def tabulate_training_curves(training_log: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a training log as plain text of six digits, which tools that compare versions can plot."""
    return training_log.select_dtypes("number").sort_values("step")
