"""Pipeline preference_reward_training."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.preference_reward_training import nodes
from vr_pipeline.pipelines.video_generation.nodes import index_preference_videos


def create_pipeline(**kwargs: Any) -> Pipeline:
    """People's labels of pairs of clips to a VideoReward's folder and its test."""
    return Pipeline(
        [
            Node(
                index_preference_videos,
                inputs=["preference_clips", "preference_videos"],
                outputs="reward_training_video_index",
                name="index_reward_training_videos",
            ),
            Node(
                nodes.train_preference_reward,
                inputs=[
                    "human_preferences",
                    "reward_training_video_index",
                    "preference_videos",
                    "params:preference_reward_training",
                ],
                outputs=[
                    "trained_reward",
                    "preference_reward_report",
                    "preference_reward_reliability",
                    "preference_reward_log",
                    "preference_reward_metrics",
                ],
                name="train_preference_reward",
                tags=["gpu", "train"],
            ),
            Node(
                nodes.draw_preference_reward_report,
                inputs=["preference_reward_report", "preference_reward_reliability", "preference_reward_log"],
                outputs="preference_reward_figure",
                name="draw_preference_reward_report",
            ),
        ]
    )
