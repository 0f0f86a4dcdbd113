"""Pipeline preference_generation."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.items.contact_sheet import contact_sheet
from vr_pipeline.items.video_index import index_made_clips
from vr_pipeline.pipelines.preference_generation import nodes
from vr_pipeline.pipelines.steps import step


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from filtered prompts to clips of all configured generators, their index and a picture of them."""
    clips = ["generator_videos", "generator_video_index"]
    return Pipeline(
        [
            step(
                nodes.generate_preference_videos,
                ["filtered_prompts", "params:preference_generators"],
                clips[0],
                tags=["gpu"],
            ),
            step(index_made_clips, clips[0], clips[1], name="index_generator_videos"),
            step(contact_sheet, clips, "generator_contact_sheet", name="draw_generator_contact_sheet"),
        ]
    )
