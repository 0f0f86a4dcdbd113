"""Nodes of unified_reward_training."""

from typing import Any

import pandas as pd

from vr_pipeline.preferences.items.clips import clips_of_items
from vr_pipeline.rewards.training.clips import read_from
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedRewardTrainingParameters
from vr_pipeline.rewards.unifiedreward.training.task import train_unified_reward as train
from vr_pipeline.rewards.unifiedreward.training.trained import TrainedUnifiedReward
from vr_pipeline.runtime.live_curves import write_row


def list_unified_clips(preference_clips: pd.DataFrame, unified_labels: pd.DataFrame | None) -> pd.DataFrame:
    """List the clips of comparisons and of labelled items."""
    if unified_labels is None or "video_path_a" not in unified_labels.columns:
        return preference_clips
    both = pd.concat([preference_clips, clips_of_items(unified_labels)], ignore_index=True)
    return both.drop_duplicates("video_id", ignore_index=True)


def train_unified_reward(
    unified_items: pd.DataFrame,
    unified_training_video_index: pd.DataFrame,
    preference_videos: Any,
    parameters: UnifiedRewardTrainingParameters,
) -> tuple[TrainedUnifiedReward, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train a UnifiedReward on pairs and scores of all tasks together, and test it on other prompts."""
    read = read_from(preference_videos, unified_training_video_index)
    reward = train(unified_items, unified_training_video_index, read, parameters, observe=write_row)
    return reward, reward.report, reward.log, reward.summary
