"""Nodes of preference_generation."""

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import PreferenceGenerationParameters
from vr_pipeline.generators.plans import plan_clips_of_several
from vr_pipeline.identifiers import content_hash
from vr_pipeline.pipelines.video_generation.nodes import prompts_of_splits
from vr_pipeline.work import WorkPlan

_BLOCK = "preference_generators"


def generate_preference_videos(filtered_prompts: pd.DataFrame, parameters: PreferenceGenerationParameters) -> WorkPlan:
    """Make clips of every generator for the same prompts, with one generator in memory at a time."""
    if not parameters.generators:
        raise InputError(
            "no generator is named",
            remedy="name the generators to compare, with family, path and sizes as in the block 'generator'",
            field=f"{_BLOCK}.generators",
        )
    prompts = prompts_of_splits(filtered_prompts, parameters.splits, f"{_BLOCK}.splits")
    lots = prompts["prompt_id"].map(lambda identifier: content_hash("prompts to compare", parameters.seed, identifier))
    drawn = prompts.loc[lots.sort_values(kind="stable").index[: parameters.prompts]].sort_index()
    return plan_clips_of_several(
        drawn, parameters.generators, videos_per_prompt=parameters.videos_per_prompt, seed=parameters.seed
    )
