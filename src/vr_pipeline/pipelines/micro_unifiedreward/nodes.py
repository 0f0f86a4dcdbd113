"""Nodes of micro_unifiedreward."""

from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.micro_world.build import load_micro_generator
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.unified_build import unified_items
from vr_pipeline.micro_world.unified_figures import held_out_figures, pairs_of, reward_card
from vr_pipeline.pipelines.unified_reward_training.nodes import train_unified_reward
from vr_pipeline.rewards.training.held_out import split_by_unit
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedRewardTrainingParameters
from vr_pipeline.rewards.unifiedreward.training.trained import TrainedUnifiedReward
from vr_pipeline.video.sampled import clip_path
from vr_pipeline.work import WorkPlan


def prepare_unified_items(
    micro_generator: Path,
    oracle: Oracle,
    checklist: Checklist,
    generator: GeneratorParameters,
    parameters: MicroWorldParameters,
    training: UnifiedRewardTrainingParameters,
) -> tuple[WorkPlan, pd.DataFrame]:
    """Make clips, and label pairs and single clips; held-out prompts have separate clips."""
    made = load_micro_generator(micro_generator, generator)
    return unified_items(made, oracle, checklist, parameters, training.held_out)


def train_micro_unifiedreward(
    micro_unified_items: pd.DataFrame,
    micro_unified_video_index: pd.DataFrame,
    micro_unified_videos: Any,
    micro_judge: str,
    parameters: UnifiedRewardTrainingParameters,
) -> tuple[TrainedUnifiedReward, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train a UnifiedReward that starts from the embedded judge."""
    assert parameters.start is not None
    start = parameters.start.model_copy(update={"path": micro_judge})
    return train_unified_reward(
        micro_unified_items,
        micro_unified_video_index,
        micro_unified_videos,
        parameters.model_copy(update={"start": start}),
    )


def measure_micro_unifiedreward(
    micro_unifiedreward: str,
    micro_unified_items: pd.DataFrame,
    micro_unified_video_index: pd.DataFrame,
    micro_unified_videos: Any,
    parameters: UnifiedRewardTrainingParameters,
) -> dict[str, Any]:
    """Compare and score the pairs of test prompts with the saved reward."""
    pairs = pairs_of(micro_unified_items)
    compared = pairs[split_by_unit(pairs["prompt"].map(prompt_id), parameters.held_out) == "test"]
    named = {*compared["video_id_a"], *compared["video_id_b"]}
    index = micro_unified_video_index[micro_unified_video_index["video_id"].isin(named)]
    clips = {
        video: clip_path(micro_unified_videos, video, path)
        for video, path in index[["video_id", "path"]].itertuples(index=False)
    }
    return held_out_figures(micro_unifiedreward, clips, compared)


def write_unifiedreward_card(
    micro_unifiedreward: str,
    micro_unifiedreward_report: pd.DataFrame,
    micro_unifiedreward_figures: dict[str, Any],
    micro_unifiedreward_metrics: dict[str, Any],
    micro_judge: str,
    parameters: MicroWorldParameters,
) -> str:
    """Describe the reward: how it was made, hashes, and accuracy on held-out prompts."""
    return reward_card(
        Path(micro_unifiedreward),
        micro_unifiedreward_report,
        micro_unifiedreward_figures,
        micro_unifiedreward_metrics,
        Path(micro_judge),
        parameters,
    )
