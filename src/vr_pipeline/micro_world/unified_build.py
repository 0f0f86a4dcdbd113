"""Clips and items of the embedded UnifiedReward, from a seed."""

import numpy as np
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.micro_world.build import stored_clips
from vr_pipeline.micro_world.clips import rendered_for
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward_pairs import compare_pairs, draw_pairs, sample_clips
from vr_pipeline.micro_world.unified_items import describe_clips, grade_clips, rendered_metadata
from vr_pipeline.micro_world.world import all_prompts
from vr_pipeline.rewards.training.held_out import HeldOutParameters, split_by_unit
from vr_pipeline.rewards.unifiedreward.training.items import (
    items_from_preferences,
    items_from_ratings,
    items_of,
    mixed,
)
from vr_pipeline.work import WorkPlan

GENERATED, RENDERED = "micro_world generated", "micro_world rendered"
"""Sources of the items."""
GRADE_WEIGHT = 0.5
"""Times that a grade is shown per epoch, since grades are learned sooner than comparisons."""


def unified_items(
    generator: Generator,
    oracle: Oracle,
    checklist: Checklist,
    parameters: MicroWorldParameters,
    held_out: HeldOutParameters,
) -> tuple[WorkPlan, pd.DataFrame]:
    """Make clips and labelled items of video generation and video understanding.

    No other item uses the clips of items of held-out prompts.

    Returns:
        the clips, and the items (schema ``UnifiedItems``).
    """
    prompts = pd.Series(all_prompts())
    side = split_by_unit(prompts.map(prompt_id), held_out)
    settings, seed = parameters.unified_items, parameters.seed
    tables, ids, frames, rows = [], [], [], []
    for purpose, clips_per_prompt, num_pairs, num_described, asked in (
        (
            "unified training",
            settings.clips_per_prompt,
            settings.num_pairs,
            settings.num_described_clips,
            side == "train",
        ),
        (
            "unified held out",
            settings.num_held_out_clips_per_prompt,
            settings.num_held_out_pairs,
            settings.num_held_out_described_clips,
            side != "train",
        ),
    ):
        own = frozenset(prompts[asked])
        clips = sample_clips(generator, clips_per_prompt, seed=seed, purpose=purpose)
        recognised = oracle.recognise(clips.frames)
        pairs = draw_pairs(clips, num_pairs, settings.cross_prompt_share, prompts=own, seed=seed, purpose=purpose)
        compared = compare_pairs(pairs, clips, recognised, checklist, settings, seed=seed)
        grades = grade_clips(clips, recognised, checklist, settings, prompts=own, seed=seed)
        rendered = rendered_for(purpose, num_described, parameters)
        described = rendered.part([at for at, scene in enumerate(rendered.scenes) if scene.prompt in own])
        described_ids, metadata = rendered_metadata(described, seed=seed, purpose=purpose)
        comparisons, right = describe_clips(described, described_ids, settings, seed=seed)
        tables += [
            items_from_preferences(compared, source=GENERATED),
            items_from_ratings(grades, source=GENERATED, pairs=False).assign(weight=GRADE_WEIGHT),
            items_of(comparisons, task="video_understanding", form="pair", source=RENDERED),
            items_from_ratings(right, task="video_understanding", source=RENDERED, pairs=False),
        ]
        ids += [*clips.video_ids, *described_ids]
        frames += [clips.frames, described.frames]
        rows += [*clips.metadata(f"micro_world {purpose}"), *metadata]
    plan = stored_clips(ids, np.concatenate(frames), rows, description="clips for the unified reward")
    return plan, mixed(tables)
