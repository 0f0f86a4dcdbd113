"""Trainings of rewards that the processes of a group run; a module of its own, for started processes to import."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tiny_rewards
from vr_pipeline.engine import loop
from vr_pipeline.engine.config import LoopParameters

COMMON: dict[str, Any] = {"steps": 4, "batch_size": 8, "micro_batch_size": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    # Some labels are masked: the means of passes are not the mean of the step.
    "full": {"learn_theta": True, "ema_decay": 0.9},
    "lora": {"language": "lora", "lora": {"rank": 2, "alpha": 4, "dropout": 0.2}, "gradient_checkpointing": True},
    "grades": {"loss": "regression", "network": {"dimensions": [{"name": "visual"}]}, "vision": "frozen"},
}
"""Trainings by name."""
KILLED = "killed"
"""Another one, killed in step 3 and started again."""


@dataclass
class RewardResult:
    """What a training left in one process."""

    weights: dict[str, np.ndarray]
    log: pd.DataFrame
    report: pd.DataFrame
    told: list[int]
    steps: list[int]


class Killed(BaseException):
    """What a kill looks like from inside."""


def train(start: dict[str, Any], name: str, *, killed_in: int | None = None, **changes: Any) -> RewardResult:
    """One training from the model in a folder."""
    real, steps, told = loop.learning_rate, [], []

    def watched(step: int, parameters: LoopParameters) -> float:
        if step == killed_in:
            raise Killed
        steps.append(step)
        return real(step, parameters)

    loop.learning_rate = watched
    try:
        options = COMMON | OPTIONS[name] | changes
        trained = tiny_rewards.train(start, observe=lambda row: told.append(int(row["step"])), **options)
    finally:
        loop.learning_rate = real
    return RewardResult(tiny_rewards.weights(trained), trained.log, trained.report, told, steps)


def run_all(start: dict[str, Any], checkpoints: Path) -> dict[str, RewardResult]:
    """All trainings, one after the other, in this process of a group."""
    results = {name: train(start, name) for name in OPTIONS}
    folder = {"checkpoint_folder": str(checkpoints)}
    with contextlib.suppress(Killed):
        train(start, "full", killed_in=3, **folder)
    return results | {KILLED: train(start, "full", **folder)}
