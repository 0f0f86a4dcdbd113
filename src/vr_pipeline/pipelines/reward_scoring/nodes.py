"""Nodes of reward_scoring; evaluation uses the same for the clips of policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.work import WorkItem, WorkPlan


def plan_scores(videos: Any, video_index: pd.DataFrame, reward_model: RewardModelParameters) -> WorkPlan:
    """Measure every clip by the reward; what was measured before is not measured again."""
    if reward_model.given is None:
        return WorkPlan([], _measure_nothing)
    return reward_model.model().measure(videos, video_index)


def collect_rewards(reward_shards: Any, video_index: pd.DataFrame, reward_model: RewardModelParameters) -> pd.DataFrame:
    """Make rewards of all measurements; clips that could not be measured are left out and counted."""
    if reward_model.given is None:
        names = [name for name in ("video_id", "prompt_id", "policy") if name in video_index]
        return video_index.loc[[], names].assign(total=pd.Series(dtype=float))
    model = reward_model.model()
    return model.rewards(model.collect(reward_shards, video_index), video_index)


def _measure_nothing(context: None, batch: Sequence[WorkItem]) -> list[Any]:
    return []
