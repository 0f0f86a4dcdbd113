"""Measurements of several rewards in one folder; rewards with the same measurement share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.evaluation.benchmark.config import BenchmarkReward, RewardBenchmarkParameters
from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.rewards.registry import load_reward_model


def load_benchmark_reward(given: BenchmarkReward) -> RewardModel | None:
    """Load a reward without its models; None for a baseline."""
    if given.baseline is not None:
        return None
    return load_reward_model(Path(given.path) if given.path is not None else dict(given.reward or {}))


def benchmark_rewards(parameters: RewardBenchmarkParameters, *, compare: bool) -> dict[str, RewardModel]:
    """Return the rewards that score clips (or compare pairs) by name."""
    chosen = {name: one for name, one in parameters.rewards.items() if one.compare == compare}
    loaded = {name: load_benchmark_reward(one) for name, one in chosen.items()}
    return {name: one for name, one in loaded.items() if one is not None}


def measurement_of(reward: RewardModel) -> str:
    """Return the identity of a reward's measurements, equal for rewards that only weight them differently."""
    return content_hash("benchmark measurement", reward.kind, *reward.measured_by)


class Part:
    """The items of the plan ``name`` in a joined folder, with the interface of a folder."""

    def __init__(self, stored: Any, name: str) -> None:
        self._stored, self._begin = stored, f"{name}-"

    @property
    def keys(self) -> list[str]:
        """Keys of the finished items."""
        return [key.removeprefix(self._begin) for key in self._stored.keys if key.startswith(self._begin)]

    def load_joined(self, keys: Sequence[str]) -> Any:
        """Return the content of items as one table."""
        return self._stored.load_joined([self._begin + key for key in keys])


def score_table(rewards: Mapping[str, RewardModel], stored: Any, index: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of all rewards: reward, video_id, dimension (or 'total'), score, without failed clips."""
    parts = []
    for name, reward in rewards.items():
        of_clips = reward.rewards(reward.collect(Part(stored, measurement_of(reward)), index), index)
        columns = ["total", *(column for column in of_clips.columns if column.startswith("dim_"))]
        long = of_clips.melt(id_vars="video_id", value_vars=columns, var_name="dimension", value_name="score")
        parts.append(long.assign(reward=name, dimension=long["dimension"].str.removeprefix("dim_")))
    columns = ["reward", "video_id", "dimension", "score"]
    if not parts:
        return pd.DataFrame({name: pd.Series(dtype=float if name == "score" else str) for name in columns})
    return pd.concat(parts, ignore_index=True)[columns]
