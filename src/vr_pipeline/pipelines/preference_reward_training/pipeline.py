"""Pipeline preference_reward_training."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.preference_reward_training import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.video_generation.nodes import index_preference_videos
from vr_pipeline.rewards.videoreward.training.plots import preference_reward_figure


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from people's labels of pairs of clips to a VideoReward's folder and its test."""
    return Pipeline(
        [
            step(
                index_preference_videos,
                ["preference_clips", "preference_videos"],
                "reward_training_video_index",
                name="index_reward_training_videos",
            ),
            step(
                nodes.train_preference_reward,
                [
                    "human_preferences",
                    "reward_training_video_index",
                    "preference_videos",
                    "params:preference_reward_training",
                ],
                [
                    "trained_reward",
                    "preference_reward_report",
                    "preference_reward_reliability",
                    "preference_reward_log",
                    "preference_reward_metrics",
                ],
                tags=["gpu", "train"],
            ),
            step(
                preference_reward_figure,
                ["preference_reward_report", "preference_reward_reliability", "preference_reward_log"],
                "preference_reward_figure",
                name="draw_preference_reward_report",
            ),
        ]
    )
