"""Nodes of reward_scoring; evaluation uses them for the clips of policies."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.work import WorkItem, WorkPlan


def describe_reward(reward_model: RewardModelParameters) -> dict[str, Any]:
    """Describe the reward: type, path, identity (a hash of its content) and dimensions."""
    if reward_model.given is None:
        return {"type": None}
    model = load_reward_model(reward_model.given)
    described = {"type": reward_model.type, "path": reward_model.settings.get("path"), "identity": model.identity}
    return {**described, "dimensions": list(model.dimensions)}


def plan_scores(videos: Any, video_index: pd.DataFrame, reward_model: RewardModelParameters) -> WorkPlan:
    """Measure every clip by the reward; finished measurements are not repeated."""
    if reward_model.given is None:
        return WorkPlan([], _measure_nothing)
    return load_reward_model(reward_model.given).measure(videos, video_index)


def collect_rewards(reward_shards: Any, video_index: pd.DataFrame, reward_model: RewardModelParameters) -> pd.DataFrame:
    """Turn all measurements into rewards; clips that could not be measured are left out and counted."""
    if reward_model.given is None:
        names = [name for name in ("video_id", "prompt_id", "policy") if name in video_index]
        return video_index.loc[[], names].assign(total=pd.Series(dtype=float))
    model = load_reward_model(reward_model.given)
    return model.rewards(model.collect(reward_shards, video_index), video_index)


def _measure_nothing(context: None, batch: Sequence[WorkItem]) -> list[Any]:
    return []
