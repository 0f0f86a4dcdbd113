"""Nodes of preference_reward_training."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters
from vr_pipeline.rewards.videoreward.training.task import TrainedReward


def train_preference_reward(
    human_preferences: pd.DataFrame,
    reward_training_video_index: pd.DataFrame,
    preference_videos: Any,
    parameters: PreferenceRewardTrainingParameters,
) -> tuple[TrainedReward, pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train a VideoReward on labelled pairs, calibrate it on validation pairs and test it on others."""
    from vr_pipeline.rewards.videoreward.training.clips import read_from
    from vr_pipeline.rewards.videoreward.training.task import train_preference_reward as train
    from vr_pipeline.runtime.live_curves import write_row

    read = read_from(preference_videos, reward_training_video_index)
    reward = train(human_preferences, reward_training_video_index, read, parameters, observe=write_row)
    return reward, reward.report, reward.reliability, reward.log, reward.summary


def draw_preference_reward_report(
    preference_reward_report: pd.DataFrame,
    preference_reward_reliability: pd.DataFrame,
    preference_reward_log: pd.DataFrame,
) -> Figure:
    """Show accuracy by dimension, stated against observed probabilities and the course of training."""
    from vr_pipeline.rewards.videoreward.training.plots import preference_reward_figure

    return preference_reward_figure(preference_reward_report, preference_reward_reliability, preference_reward_log)
