"""Nodes of latent_reward_training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.pairs.given import fitted_clips, index_fitted_clips
from vr_pipeline.runtime.live_curves import write_row
from vr_pipeline.training.conditions import plan_conditions
from vr_pipeline.training.latent_reward.config import LatentRewardTrainingParameters
from vr_pipeline.training.latent_reward.data import clips_of
from vr_pipeline.training.latent_reward.training import TrainedLatentReward, encoded_pairs
from vr_pipeline.training.latent_reward.training import train_latent_reward as train
from vr_pipeline.training.latents import plan_latents
from vr_pipeline.training.table import prompts_of
from vr_pipeline.work import WorkPlan


def examine_compared_clips(
    preference_clips: pd.DataFrame,
    preference_videos: Mapping[str, Path],
    generator: GeneratorParameters,
    parameters: LatentRewardTrainingParameters,
) -> pd.DataFrame:
    """Determine for every compared clip how to fit it to the generator."""
    return index_fitted_clips(preference_clips, preference_videos, "preference_clips", generator, parameters.fit)


def encode_latents(
    videos: Any,
    latent_reward_pairs: pd.DataFrame,
    generator: GeneratorParameters,
    parameters: LatentRewardTrainingParameters,
) -> WorkPlan:
    """Encode the clips of all pairs."""
    clips = clips_of(latent_reward_pairs)
    return plan_latents(videos, clips, clips["video_id"].tolist(), parameters.encoded(generator), parameters.shard_size)


def encode_compared_latents(
    latent_reward_pairs: pd.DataFrame,
    latent_reward_clips: pd.DataFrame,
    preference_videos: Mapping[str, Path],
    generator: GeneratorParameters,
    parameters: LatentRewardTrainingParameters,
) -> WorkPlan:
    """Encode the compared clips, fitted to the generator."""
    fitted = fitted_clips(latent_reward_clips, preference_videos, generator, parameters.fit)
    return encode_latents(fitted, latent_reward_pairs, generator, parameters)


def encode_prompts(
    latent_reward_pairs: pd.DataFrame, generator: GeneratorParameters, parameters: LatentRewardTrainingParameters
) -> WorkPlan:
    """Encode the prompts of all pairs."""
    prompts = prompts_of(latent_reward_pairs)
    needed = prompts["prompt_id"].tolist()
    return plan_conditions(prompts, needed, parameters.encoded(generator), parameters.shard_size)


def train_latent_reward(
    latent_reward_pairs: pd.DataFrame,
    latent_reward_latents: Any,
    latent_reward_conditions: Any,
    generator: GeneratorParameters,
    parameters: LatentRewardTrainingParameters,
) -> tuple[TrainedLatentReward, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train the generator's first blocks to predict the preferred clip, and test them on pairs of other prompts."""
    data = encoded_pairs(latent_reward_pairs, latent_reward_latents, latent_reward_conditions)
    trained = train(data, generator, parameters, observe=write_row)
    return trained, trained.report, trained.log, trained.summary
