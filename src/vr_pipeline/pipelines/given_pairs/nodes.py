"""Nodes of given_pairs, and the encoding of given clips."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.pairs.config import GivenPairsParameters
from vr_pipeline.pairs.given import (
    divide_prompts,
    examine_clips,
    fitted_clips,
    training_table,
)
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.latents import plan_latents
from vr_pipeline.training.table import HELD_OUT, clips_of
from vr_pipeline.work import WorkPlan


def examine_given_clips(
    given_pairs: pd.DataFrame,
    decided_pairs: pd.DataFrame,
    given_videos: Mapping[str, Path],
    generator: GeneratorParameters,
    parameters: GivenPairsParameters,
) -> pd.DataFrame:
    """Determine for every clip how to fit it to the generator; unusable clips are set aside."""
    return examine_clips(given_pairs, decided_pairs, given_videos, generator, parameters.fit)


def divide_given_prompts(given_pair_decisions: pd.DataFrame, parameters: GivenPairsParameters) -> pd.DataFrame:
    """Hold out prompts for validation and evaluation."""
    return divide_prompts(given_pair_decisions, parameters.held_out)


def list_training_pairs(
    given_pair_decisions: pd.DataFrame, given_clips: pd.DataFrame, filtered_prompts: pd.DataFrame, recipe: str
) -> pd.DataFrame:
    """List the training pairs and the held-out pairs of validation."""
    return training_table(given_pair_decisions, given_clips, filtered_prompts, recipe, HELD_OUT)


def encode_given_latents(
    training_pairs: pd.DataFrame,
    given_clips: pd.DataFrame,
    given_videos: Mapping[str, Path],
    given_pairs: GivenPairsParameters,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
) -> WorkPlan:
    """Encode the clips of all pairs, fitted to the generator; clips that do not decode completely are set aside."""
    clips = fitted_clips(given_clips, given_videos, generator, given_pairs.fit)
    needed = [*training_pairs["winner_video_id"], *training_pairs["loser_video_id"]]
    return plan_latents(clips, clips_of(training_pairs), needed, parameters.trained(generator), parameters.shard_size)
