"""Nodes of dpo_training."""

from __future__ import annotations

from typing import Any

import pandas as pd

from vr_pipeline.generators.contract import Adapter
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.work import WorkPlan


def encode_latents(
    videos: Any,
    video_index: pd.DataFrame,
    preference_pairs_mpo: pd.DataFrame,
    preference_pairs_dpo: pd.DataFrame,
    parameters: DpoTrainingParameters,
) -> WorkPlan:
    """Encode the clips of all selected pairs once, for every training that uses them."""
    from vr_pipeline.training.latents import plan_latents

    pairs = pd.concat([preference_pairs_mpo, preference_pairs_dpo])
    needed = [*pairs["winner_video_id"], *pairs["loser_video_id"]]
    return plan_latents(videos, video_index, needed, parameters.generator, parameters.encode_batch_size)


def train_policy(
    preference_pairs: pd.DataFrame, latents: Any, filtered_prompts: pd.DataFrame, parameters: DpoTrainingParameters
) -> tuple[Adapter, pd.DataFrame]:
    """Train an adapter that makes winners likelier and losers less likely than the frozen generator does."""
    from vr_pipeline.training.policies import train_policy_on_pairs

    return train_policy_on_pairs(preference_pairs, latents, filtered_prompts, parameters)


def tabulate_training_curves(training_log: pd.DataFrame) -> pd.DataFrame:
    """The numbers of a training log as plain text of six digits, which tools that compare versions can plot."""
    return training_log.select_dtypes("number").sort_values("step")
