"""Trainings that the processes of a group run; a module of its own, so that started processes can import it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from toy_training import Toy
from vr_pipeline.engine import loop
from vr_pipeline.training.preference_trainer import Validation, train_on_pairs

FULL: dict[str, object] = {"method": "full", "learning_rate": 1e-4}
REWARDS = {2: 0.5, 4: 2.0, 6: 1.0}
"""What checkpoints are said to be worth, by step."""

PLAIN: dict[str, dict[str, object]] = {
    "lora": {},
    "lora in parts": {"micro_batch_size": 1},
    "full": {**FULL},
    "sharded": {"sharding": "fsdp2", **FULL},
    "sharded, in parts": {"sharding": "fsdp2", "micro_batch_size": 1, "gradient_checkpointing": True, **FULL},
}
"""Trainings without interruption, by name."""

RESUMED: dict[str, dict[str, object]] = {
    "lora": {},
    "sharded": {"sharding": "fsdp2", **FULL},
}
"""Trainings with an average and judged checkpoints, stopped on the way and started again."""

HANDED_OVER = "handed over.safetensors"
"""Checkpoint of a sharded training that is left as it was when it stopped."""


@dataclass
class Result:
    """What a training left in one process."""

    tensors: dict[str, torch.Tensor]
    log: pd.DataFrame
    judged: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    told: list[dict[str, float]] = field(default_factory=list)
    clips: Any = None


class Stopped(BaseException):
    """What a kill looks like from inside."""


def train_plainly(toy: Toy, changes: dict[str, object]) -> Result:
    """One training from start to end."""
    generator = toy.generator()
    log = train_on_pairs(generator, toy.data, toy.parameters(**changes))
    return Result(generator.policy().tensors, log)


def train_with_a_stop(toy: Toy, changes: dict[str, object], file: Path | None, *, start_again: bool = True) -> Result:
    """A training whose checkpoints are judged; with a file it is stopped in step 5 and, if wanted, started again."""
    parameters = toy.parameters(ema_decay=0.5, checkpoint_every=2, **changes)
    result = Result({}, pd.DataFrame())
    log_row, save = loop.log_row, loop.save_checkpoint

    def stopping(step: int, *rest: Any) -> dict[str, float]:
        if step == 5:
            raise Stopped
        return log_row(step, *rest)

    def saving(path: Path, state: Any, *, identity: str, main: bool) -> None:
        save(path, state, identity=identity, main=main)
        if main:
            result.written.append(state.step)

    def run() -> None:
        generator = toy.generator()

        def judge(step: int) -> float:
            result.judged.append(step)
            if step == 4:
                prompts = sorted(toy.conditions)[:2]
                with generator.encoders():
                    result.clips = generator.sample(prompts, [1, 2])
            return REWARDS[step]

        result.log = train_on_pairs(
            generator,
            toy.data,
            parameters,
            checkpoint=file,
            validation=Validation(judge),
            observe=lambda row: result.told.append(dict(row)),
        )
        result.tensors = generator.policy().tensors

    loop.save_checkpoint = saving  # type: ignore[assignment]
    try:
        if file is not None and not file.exists():
            loop.log_row = stopping
            try:
                run()
            except Stopped:
                assert file.is_file()
            loop.log_row = log_row
        if start_again:
            run()
    finally:
        loop.log_row, loop.save_checkpoint = log_row, save
    return result


def run_all(folder: str) -> dict[str, Result]:
    """All trainings, one after the other, in this process of a group."""
    torch.set_num_threads(1)
    toy: Toy = pickle.loads((Path(folder) / "toy.pickle").read_bytes())
    results = {name: train_plainly(toy, changes) for name, changes in PLAIN.items()}
    for name, changes in RESUMED.items():
        results[f"{name}, resumed"] = train_with_a_stop(toy, changes, Path(folder) / f"{name}.safetensors")
        # Started once more although it has finished, as after a kill before its policy was saved.
        results[f"{name}, finished"] = train_with_a_stop(toy, changes, Path(folder) / f"{name}.safetensors")
    train_with_a_stop(toy, RESUMED["sharded"], Path(folder) / HANDED_OVER, start_again=False)
    return results
