"""Pipeline video_generation."""

from __future__ import annotations

from typing import Any

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.systems import MPO_DPO, System
from vr_pipeline.pipelines.video_generation import nodes


def create_pipeline(system: System = MPO_DPO, **kwargs: Any) -> Pipeline:
    """Lead from filtered prompts to clips and their index, and from clips that weights are fitted on to theirs."""
    given = Node(
        nodes.index_preference_videos,
        inputs=["preference_clips", "preference_videos"],
        outputs="preference_video_index",
        name="index_preference_videos",
    )
    return Pipeline(
        [
            Node(
                nodes.generate_videos,
                inputs=["filtered_prompts", "params:generator", "params:video_generation"],
                outputs="videos",
                name="generate_videos",
                tags=["gpu"],
            ),
            Node(nodes.index_videos, inputs="videos", outputs="video_index", name="index_videos"),
            *([given] if "weight_regression" in system.stages else []),
            Node(
                nodes.draw_contact_sheet,
                inputs=["videos", "video_index"],
                outputs="video_contact_sheet",
                name="draw_contact_sheet",
            ),
        ]
    )
