"""Nodes of ablation_study."""

from typing import Any

import pandas as pd

from vr_pipeline.drawing import Figure
from vr_pipeline.evaluation.ablation.config import AblationParameters
from vr_pipeline.evaluation.ablation.gains import ablation_metrics, gain_table
from vr_pipeline.evaluation.ablation.pairs import select_by_rules
from vr_pipeline.evaluation.ablation.plot import gains_by_dimension
from vr_pipeline.evaluation.ablation.report import ablation_page
from vr_pipeline.evaluation.ablation.trainings import trained_policies
from vr_pipeline.evaluation.config import EvaluationParameters
from vr_pipeline.evaluation.metrics import rewards_by_source
from vr_pipeline.evaluation.policies import plan_policy_clips
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.pairs.config import PairSelectionParameters
from vr_pipeline.pipelines.video_generation.nodes import prompts_of_splits
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.table import join_pairs
from vr_pipeline.work import WorkPlan


def select_ablation_pairs(
    rewards: pd.DataFrame,
    filtered_prompts: pd.DataFrame,
    video_index: pd.DataFrame,
    pair_selection: PairSelectionParameters,
    parameters: AblationParameters,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Select equally many pairs by every rule, and count how many of each rule's winners dominate."""
    pairs, counts = select_by_rules(rewards, pair_selection, parameters)
    return join_pairs(pairs, dict.fromkeys(pairs, rewards), filtered_prompts, video_index), counts


def generate_ablation_videos(
    filtered_prompts: pd.DataFrame,
    ablation_policies: Any,
    generator: GeneratorParameters,
    dpo_training: DpoTrainingParameters,
    parameters: AblationParameters,
) -> WorkPlan:
    """Make clips of the original generator and of every policy for held-out prompts, from the same seeds."""
    prompts = prompts_of_splits(filtered_prompts, parameters.splits, "ablation.splits")
    policies = trained_policies(ablation_policies, generator, dpo_training, parameters)
    settings = EvaluationParameters(
        splits=parameters.splits, videos_per_prompt=parameters.videos_per_prompt, seed=parameters.seed
    )
    return plan_policy_clips(prompts, policies, generator, settings)


def measure_ablation_gains(
    ablation_rewards: pd.DataFrame, ablation_oracle_rewards: pd.DataFrame, parameters: AblationParameters
) -> pd.DataFrame:
    """Measure the gain of every combination by dimension, over the original and between combinations."""
    return gain_table(rewards_by_source(ablation_rewards, ablation_oracle_rewards), parameters)


def summarise_ablation(
    ablation_gains: pd.DataFrame,
    ablation_pair_counts: dict[str, Any],
    ablation_trainings: pd.DataFrame,
    parameters: AblationParameters,
) -> tuple[dict[str, Any], Figure, str]:
    """Write the figures, the picture and the page."""
    found = (ablation_gains, ablation_pair_counts, ablation_trainings, parameters)
    return ablation_metrics(*found), gains_by_dimension(ablation_gains), ablation_page(*found)
