"""Pipeline unified_reward_training."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.unified_reward_training import nodes
from vr_pipeline.pipelines.video_generation.nodes import index_preference_videos
from vr_pipeline.rewards.unifiedreward.training.items import items_from_sources
from vr_pipeline.rewards.unifiedreward.training.plots import unified_reward_figure


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from people's labels of pairs and of single clips or texts to a UnifiedReward's folder and its test."""
    return Pipeline(
        [
            step(
                items_from_sources,
                ["human_preferences", "unified_labels", "params:unified_item_sources"],
                "unified_items",
                name="gather_unified_items",
            ),
            step(nodes.list_unified_clips, ["preference_clips", "unified_labels"], "unified_clips"),
            step(
                index_preference_videos,
                ["unified_clips", "preference_videos"],
                "unified_training_video_index",
                name="index_unified_training_videos",
            ),
            step(
                nodes.train_unified_reward,
                [
                    "unified_items",
                    "unified_training_video_index",
                    "preference_videos",
                    "params:unified_reward_training",
                ],
                ["trained_unified_reward", "unified_reward_report", "unified_reward_log", "unified_reward_metrics"],
                tags=["gpu", "train"],
            ),
            step(
                unified_reward_figure,
                ["unified_reward_report", "unified_reward_log"],
                "unified_reward_figure",
                name="draw_unified_reward_report",
            ),
        ]
    )
