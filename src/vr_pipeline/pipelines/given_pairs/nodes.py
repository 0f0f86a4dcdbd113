"""Nodes of given_pairs, and the encoding of given clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.pairs.config import GivenPairsParameters
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.work import WorkPlan


def decide_given_pairs(given_pairs: pd.DataFrame) -> pd.DataFrame:
    """Find the winner of each pair by the majority of its annotators; ties are marked."""
    from vr_pipeline.pairs.given import decide_pairs

    return decide_pairs(given_pairs)


def examine_given_clips(
    given_pairs: pd.DataFrame,
    decided_pairs: pd.DataFrame,
    given_videos: Mapping[str, Path],
    generator: GeneratorParameters,
    parameters: GivenPairsParameters,
) -> pd.DataFrame:
    """Look at every clip, and state what makes it fit the generator; those that cannot be used are set aside."""
    from vr_pipeline.pairs.given import examine_clips

    return examine_clips(given_pairs, decided_pairs, given_videos, generator, parameters.fit)


def keep_usable_pairs(decided_pairs: pd.DataFrame, given_clips: pd.DataFrame) -> pd.DataFrame:
    """Keep the pairs whose two clips can be used; the others stay in the table with the reason."""
    from vr_pipeline.pairs.given import keep_usable

    return keep_usable(decided_pairs, given_clips)


def divide_given_prompts(given_pair_decisions: pd.DataFrame, parameters: GivenPairsParameters) -> pd.DataFrame:
    """Hold some prompts out, for measuring the training and for comparing policies."""
    from vr_pipeline.pairs.given import divide_prompts

    return divide_prompts(given_pair_decisions, parameters.held_out)


def list_training_pairs(
    given_pair_decisions: pd.DataFrame, given_clips: pd.DataFrame, filtered_prompts: pd.DataFrame, recipe: str
) -> pd.DataFrame:
    """List the pairs to train on, and the held-out ones that measure the training."""
    from vr_pipeline.pairs.given import training_table
    from vr_pipeline.training.table import HELD_OUT

    return training_table(given_pair_decisions, given_clips, filtered_prompts, recipe, HELD_OUT)


def report_given_pairs(
    given_pair_decisions: pd.DataFrame, given_clips: pd.DataFrame, filtered_prompts: pd.DataFrame
) -> dict[str, Any]:
    """Count pairs, clips and prompts, and name everything that was set aside with its reason."""
    from vr_pipeline.pairs.given import pairs_report

    return pairs_report(given_pair_decisions, given_clips, filtered_prompts)


def encode_given_latents(
    training_pairs: pd.DataFrame,
    given_clips: pd.DataFrame,
    given_videos: Mapping[str, Path],
    given_pairs: GivenPairsParameters,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
) -> WorkPlan:
    """Encode the clips of all pairs as the generator takes them; one that does not decode to its end is set aside."""
    from vr_pipeline.pairs.given import fitted_clips
    from vr_pipeline.training.latents import plan_latents
    from vr_pipeline.training.table import clips_of

    clips = fitted_clips(given_clips, given_videos, generator, given_pairs.fit)
    needed = [*training_pairs["winner_video_id"], *training_pairs["loser_video_id"]]
    return plan_latents(clips, clips_of(training_pairs), needed, parameters.trained(generator), parameters.shard_size)
