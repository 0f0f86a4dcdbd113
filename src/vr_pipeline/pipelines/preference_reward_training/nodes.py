"""Nodes of preference_reward_training."""

from typing import Any

import pandas as pd

from vr_pipeline.rewards.training.clips import read_from
from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters
from vr_pipeline.rewards.videoreward.training.task import TrainedReward
from vr_pipeline.rewards.videoreward.training.task import train_preference_reward as train
from vr_pipeline.runtime.live_curves import write_row


def train_preference_reward(
    human_preferences: pd.DataFrame,
    reward_training_video_index: pd.DataFrame,
    preference_videos: Any,
    parameters: PreferenceRewardTrainingParameters,
) -> tuple[TrainedReward, pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train a VideoReward on labelled pairs, calibrate it on validation pairs and test it on test pairs."""
    read = read_from(preference_videos, reward_training_video_index)
    reward = train(human_preferences, reward_training_video_index, read, parameters, observe=write_row)
    return reward, reward.report, reward.reliability, reward.log, reward.summary
