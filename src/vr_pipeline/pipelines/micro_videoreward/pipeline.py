"""Pipeline micro_videoreward."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.pipelines.micro_videoreward import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.rewards.videoreward.training.plots import preference_reward_figure


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from the embedded generator, judge and oracle to a VideoReward, its test and its card."""
    return Pipeline(
        [
            step(
                nodes.prepare_reward_pairs,
                [
                    "micro_generator",
                    "oracle",
                    "checklist",
                    "params:generator",
                    "params:micro_world",
                    "params:micro_videoreward",
                ],
                ["micro_reward_videos", "micro_reward_preferences"],
                tags=["gpu"],
            ),
            step(index_made_clips, "micro_reward_videos", "micro_reward_video_index", name="index_reward_videos"),
            step(
                nodes.train_micro_videoreward,
                [
                    "micro_reward_preferences",
                    "micro_reward_video_index",
                    "micro_reward_videos",
                    "micro_judge",
                    "params:micro_videoreward",
                ],
                [
                    "micro_videoreward",
                    "micro_videoreward_report",
                    "micro_videoreward_reliability",
                    "micro_videoreward_log",
                    "micro_videoreward_metrics",
                ],
                tags=["gpu", "train"],
            ),
            step(
                preference_reward_figure,
                ["micro_videoreward_report", "micro_videoreward_reliability", "micro_videoreward_log"],
                "micro_videoreward_figure",
                name="draw_micro_videoreward_report",
            ),
            step(
                nodes.measure_micro_videoreward,
                [
                    "micro_videoreward",
                    "micro_reward_preferences",
                    "micro_reward_video_index",
                    "micro_reward_videos",
                    "params:micro_videoreward",
                ],
                "micro_videoreward_figures",
                tags=["gpu"],
            ),
            step(
                nodes.write_videoreward_card,
                [
                    "micro_videoreward",
                    "micro_videoreward_figures",
                    "micro_videoreward_metrics",
                    "micro_judge",
                    "params:micro_world",
                ],
                "micro_videoreward_card",
            ),
        ]
    )
