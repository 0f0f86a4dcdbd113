"""Nodes of video_generation."""

from __future__ import annotations

from collections.abc import Sequence
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

    prompts = prompts_of_splits(filtered_prompts, parameters.splits, "video_generation.splits")
    return plan_clips(prompts, generator, videos_per_prompt=parameters.videos_per_prompt, seed=parameters.seed)


def prompts_of_splits(prompts: pd.DataFrame, splits: Sequence[str], field: str) -> pd.DataFrame:
    """Choose the prompts of these splits.

    Raises:
        InputError: there is none; the error names the field that chooses the splits.
    """
    chosen = prompts[prompts["split"].isin(splits)]
    if chosen.empty:
        raise InputError(
            f"no prompt is left in the splits {', '.join(splits)}",
            field=field,
            remedy="choose other splits, change the shares in prompt_filtering, or supply more prompts",
        )
    return chosen


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
