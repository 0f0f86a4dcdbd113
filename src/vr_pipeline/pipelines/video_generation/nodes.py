"""Nodes of video_generation."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters, VideoGenerationParameters
from vr_pipeline.generators.plans import plan_clips
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.work import WorkPlan


def generate_videos(
    filtered_prompts: pd.DataFrame, generator: GeneratorParameters, parameters: VideoGenerationParameters
) -> WorkPlan:
    """Make several clips for each prompt of the configured splits, each from its own seed."""
    prompts = prompts_of_splits(filtered_prompts, parameters.splits, "video_generation.splits")
    return plan_clips(prompts, generator, videos_per_prompt=parameters.videos_per_prompt, seed=parameters.seed)


def prompts_of_splits(prompts: pd.DataFrame, splits: Sequence[str], field: str) -> pd.DataFrame:
    """Return the prompts of some splits.

    Raises:
        InputError: there is none; the error names the field that sets the splits.
    """
    chosen = prompts[prompts["split"].isin(splits)]
    if chosen.empty:
        raise InputError(
            f"no prompt is left in the splits {', '.join(splits)}",
            field=field,
            remedy="choose other splits, change the shares in prompt_filtering, or supply more prompts",
        )
    return chosen


def index_preference_videos(preference_clips: pd.DataFrame, preference_videos: Any) -> pd.DataFrame:
    """List the compared clips; clips that do not decode have status 'failed' and the reason."""
    return index_given_clips(preference_clips, preference_videos, source="preference_clips")
