"""Nodes of micro_videoreward."""

from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.micro_world.build import load_micro_generator, of_any_enlargement, reward_pairs
from vr_pipeline.micro_world.config import MicroWorldParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward_figures import held_out_figures, reward_card
from vr_pipeline.pipelines.preference_reward_training.nodes import train_preference_reward
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.rewards.training.held_out import split_by_unit
from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters
from vr_pipeline.rewards.videoreward.training.task import TrainedReward
from vr_pipeline.statistics.agreement import without_nan
from vr_pipeline.video.sampled import clip_path
from vr_pipeline.work import WorkPlan


def prepare_reward_pairs(
    micro_generator: Path,
    oracle: Oracle,
    checklist: Checklist,
    generator: GeneratorParameters,
    parameters: MicroWorldParameters,
    training: PreferenceRewardTrainingParameters,
) -> tuple[WorkPlan, pd.DataFrame]:
    """Sample clips and compare pairs by criterion; held-out prompts have separate clips."""
    made = load_micro_generator(micro_generator, generator)
    return reward_pairs(made, oracle, checklist, parameters, training.held_out)


def train_micro_videoreward(
    micro_reward_preferences: pd.DataFrame,
    micro_reward_video_index: pd.DataFrame,
    micro_reward_videos: Any,
    micro_judge: str,
    parameters: PreferenceRewardTrainingParameters,
) -> tuple[TrainedReward, pd.DataFrame, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train a VideoReward that starts from the embedded judge."""
    assert parameters.start is not None
    start = parameters.start.model_copy(update={"path": micro_judge})
    reward, report, reliability, log, metrics = train_preference_reward(
        micro_reward_preferences,
        micro_reward_video_index,
        micro_reward_videos,
        parameters.model_copy(update={"start": start}),
    )
    return of_any_enlargement(reward), report, reliability, log, metrics


def measure_micro_videoreward(
    micro_videoreward: str,
    micro_reward_preferences: pd.DataFrame,
    micro_reward_video_index: pd.DataFrame,
    micro_reward_videos: Any,
    parameters: PreferenceRewardTrainingParameters,
) -> list[dict[str, Any]]:
    """Test the reward on pairs of test prompts, by criterion and kind of pairs, and with swapped prompts."""
    side = split_by_unit(micro_reward_preferences["prompt"].map(prompt_id), parameters.held_out)
    compared = micro_reward_preferences[side == "test"]
    named = {*compared["video_id_a"], *compared["video_id_b"]}
    index = micro_reward_video_index[micro_reward_video_index["video_id"].isin(named)]
    clips = {
        video: clip_path(micro_reward_videos, video, path)
        for video, path in index[["video_id", "path"]].itertuples(index=False)
    }
    reward = load_reward_model({"type": "videoreward", "path": micro_videoreward, "device": "cpu", "clip_batch": 32})
    return [
        without_nan({str(name): value for name, value in row.items()})
        for row in held_out_figures(reward, clips, compared).to_dict("records")
    ]


def write_videoreward_card(
    micro_videoreward: str,
    micro_videoreward_figures: list[dict[str, Any]],
    micro_videoreward_metrics: dict[str, Any],
    micro_judge: str,
    parameters: MicroWorldParameters,
) -> str:
    """Describe the reward: how it was made, hashes, and accuracy on held-out prompts."""
    return reward_card(
        Path(micro_videoreward), micro_videoreward_figures, micro_videoreward_metrics, parameters, Path(micro_judge)
    )
