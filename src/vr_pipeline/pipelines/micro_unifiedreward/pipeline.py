"""Pipeline micro_unifiedreward."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.pipelines.micro_unifiedreward import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.rewards.unifiedreward.training.plots import unified_reward_figure


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from the embedded generator, judge and oracle to a UnifiedReward, its test and its card."""
    return Pipeline(
        [
            step(
                nodes.prepare_unified_items,
                [
                    "micro_generator",
                    "oracle",
                    "checklist",
                    "params:generator",
                    "params:micro_world",
                    "params:micro_unifiedreward",
                ],
                ["micro_unified_videos", "micro_unified_items"],
                tags=["gpu"],
            ),
            step(index_made_clips, "micro_unified_videos", "micro_unified_video_index", name="index_unified_videos"),
            step(
                nodes.train_micro_unifiedreward,
                [
                    "micro_unified_items",
                    "micro_unified_video_index",
                    "micro_unified_videos",
                    "micro_judge",
                    "params:micro_unifiedreward",
                ],
                [
                    "micro_unifiedreward",
                    "micro_unifiedreward_report",
                    "micro_unifiedreward_log",
                    "micro_unifiedreward_metrics",
                ],
                tags=["gpu", "train"],
            ),
            step(
                unified_reward_figure,
                ["micro_unifiedreward_report", "micro_unifiedreward_log"],
                "micro_unifiedreward_figure",
                name="draw_micro_unifiedreward_report",
            ),
            step(
                nodes.measure_micro_unifiedreward,
                [
                    "micro_unifiedreward",
                    "micro_unified_items",
                    "micro_unified_video_index",
                    "micro_unified_videos",
                    "params:micro_unifiedreward",
                ],
                "micro_unifiedreward_figures",
                tags=["gpu"],
            ),
            step(
                nodes.write_unifiedreward_card,
                [
                    "micro_unifiedreward",
                    "micro_unifiedreward_report",
                    "micro_unifiedreward_figures",
                    "micro_unifiedreward_metrics",
                    "micro_judge",
                    "params:micro_world",
                ],
                "micro_unifiedreward_card",
            ),
        ]
    )
