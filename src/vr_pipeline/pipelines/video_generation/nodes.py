"""Nodes of video_generation."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters, VideoGenerationParameters
from vr_pipeline.work import WorkPlan


def generate_videos(
    filtered_prompts: pd.DataFrame, generator: GeneratorParameters, parameters: VideoGenerationParameters
) -> WorkPlan:
    """Make several clips for each prompt of the chosen splits, each from its own seed."""
    from vr_pipeline.generators.plans import plan_clips

    prompts = filtered_prompts[filtered_prompts["split"].isin(parameters.splits)]
    if prompts.empty:
        raise InputError(
            f"no prompt is left in the splits {', '.join(parameters.splits)}",
            field="video_generation.splits",
            remedy="choose other splits, change the shares in prompt_filtering, or supply more prompts",
        )
    return plan_clips(prompts, generator, videos_per_prompt=parameters.videos_per_prompt, seed=parameters.seed)


def index_videos(videos: Any) -> pd.DataFrame:
    """List every clip that was made, with its seed, size and hash, and those that failed with the reason."""
    from vr_pipeline.items.video_index import index_made_clips

    return index_made_clips(videos)


def index_preference_videos(preference_clips: pd.DataFrame, preference_videos: Any) -> pd.DataFrame:
    """List the clips that people compared; clips that do not decode are set aside with the reason."""
    from vr_pipeline.items.video_index import index_given_clips

    return index_given_clips(preference_clips, preference_videos, source="preference_clips")


def draw_contact_sheet(videos: Any, video_index: pd.DataFrame) -> Figure:
    """Show the middle frame of some clips of each prompt, a prompt a row."""
    from vr_pipeline.items.contact_sheet import contact_sheet

    return contact_sheet(videos, video_index)
