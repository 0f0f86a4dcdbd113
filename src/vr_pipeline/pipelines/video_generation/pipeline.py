"""Pipeline video_generation."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.items.contact_sheet import contact_sheet
from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.systems import MPO_DPO, System
from vr_pipeline.pipelines.video_generation import nodes


def create_pipeline(system: System = MPO_DPO, **kwargs: Any) -> Pipeline:
    """Lead from filtered prompts to clips and their index, and index the compared clips that weights need."""
    given = step(nodes.index_preference_videos, ["preference_clips", "preference_videos"], "preference_video_index")
    return Pipeline(
        [
            step(
                nodes.generate_videos,
                ["filtered_prompts", "params:generator", "params:video_generation"],
                "videos",
                tags=["gpu"],
            ),
            step(index_made_clips, "videos", "video_index", name="index_videos"),
            *([given] if "weight_regression" in system.stages else []),
            step(contact_sheet, ["videos", "video_index"], "video_contact_sheet", name="draw_contact_sheet"),
        ]
    )
