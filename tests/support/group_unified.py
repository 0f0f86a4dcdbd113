"""Trainings of UnifiedRewards that processes of a group run; a module of its own, for started processes to import."""

from __future__ import annotations

from typing import Any

import tiny_unified_training as tiny

OPTIONS: dict[str, dict[str, Any]] = {
    "full": {"steps": 3, "batch_size": 8, "micro_batch_size": 2, "checkpoint_every": 3},
    "lora": {
        **{"steps": 2, "batch_size": 8, "micro_batch_size": 4, "checkpoint_every": 0},
        **{"language": "lora", "lora": {"rank": 2, "alpha": 4, "dropout": 0.2}, "gradient_checkpointing": True},
    },
}


def train_all(start: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All trainings, one after the other: weights, log and report of each."""
    found = {}
    for name, options in OPTIONS.items():
        trained = tiny.train(start, **options)
        found[name] = {"weights": tiny.weights(trained), "log": trained.log, "report": trained.report}
    return found
