"""Pipeline micro_videoreward."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.micro_videoreward import nodes
from vr_pipeline.pipelines.preference_reward_training.nodes import draw_preference_reward_report


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from the embedded generator, judge and oracle to a VideoReward, its test and its card."""
    return Pipeline(
        [
            Node(
                nodes.prepare_reward_pairs,
                inputs=[
                    "micro_generator",
                    "oracle",
                    "checklist",
                    "params:generator",
                    "params:micro_world",
                    "params:micro_videoreward",
                ],
                outputs=["micro_reward_videos", "micro_reward_preferences"],
                name="prepare_reward_pairs",
                tags=["gpu"],
            ),
            Node(
                nodes.index_reward_videos,
                inputs="micro_reward_videos",
                outputs="micro_reward_video_index",
                name="index_reward_videos",
            ),
            Node(
                nodes.train_micro_videoreward,
                inputs=[
                    "micro_reward_preferences",
                    "micro_reward_video_index",
                    "micro_reward_videos",
                    "trained_judge",
                    "params:micro_videoreward",
                ],
                outputs=[
                    "micro_videoreward",
                    "micro_videoreward_report",
                    "micro_videoreward_reliability",
                    "micro_videoreward_log",
                    "micro_videoreward_metrics",
                ],
                name="train_micro_videoreward",
                tags=["gpu", "train"],
            ),
            Node(
                draw_preference_reward_report,
                inputs=["micro_videoreward_report", "micro_videoreward_reliability", "micro_videoreward_log"],
                outputs="micro_videoreward_figure",
                name="draw_micro_videoreward_report",
            ),
            Node(
                nodes.measure_micro_videoreward,
                inputs=[
                    "micro_videoreward",
                    "micro_reward_preferences",
                    "micro_reward_video_index",
                    "micro_reward_videos",
                    "params:micro_videoreward",
                ],
                outputs="micro_videoreward_figures",
                name="measure_micro_videoreward",
                tags=["gpu"],
            ),
            Node(
                nodes.write_videoreward_card,
                inputs=[
                    "micro_videoreward",
                    "micro_videoreward_figures",
                    "micro_videoreward_metrics",
                    "trained_judge",
                    "params:micro_world",
                ],
                outputs="micro_videoreward_card",
                name="write_videoreward_card",
            ),
        ]
    )
