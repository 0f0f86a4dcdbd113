"""Settings common to all trainings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, Field

from vr_pipeline.config import Parameters
from vr_pipeline.engine.schedules import SCHEDULES
from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    ScheduleName = str
else:
    ScheduleName = Literal[tuple(SCHEDULES)]


def with_default(model: type[BaseModel], name: str, value: Any) -> Any:
    """Return a field of a model, with its description and limits, and another default for a subclass."""
    field = copy.copy(model.model_fields[name])
    field.default, field.default_factory = value, None
    return field


class LoRAParameters(Parameters):
    """Low-rank adapter."""

    rank: int = Field(64, ge=1, description="Rank of the adapter.")
    alpha: float = Field(64.0, gt=0, description="Scale of the adapter; its output is multiplied by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of the adapter's inputs set to 0 while training.")
    target_modules: list[str] | None = Field(
        None, description="Linear layers with an adapter, by the end of their name; null: the model's default."
    )


class LoopParameters(Parameters):
    """Settings of the training loop, and the size of its steps."""

    steps: int = Field(500, ge=1, description="Optimiser steps.")
    batch_size: int = Field(32, ge=1, description="Samples per step, over all processes together.")
    learning_rate: float = Field(5e-6, gt=0, description="Peak learning rate of AdamW.")
    schedule: ScheduleName = Field(
        "linear",
        description="Course of the learning rate after the warm-up: linear (reaches 0 one step after the last), "
        "linear_to_zero (at the last), cosine (to 0 at the last), constant; cosine_throughout multiplies the warm-up "
        "by a cosine over all steps.",
    )
    warmup_steps: int = Field(100, ge=0, description="Steps over which the learning rate rises linearly from 0.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    beta2: float = Field(0.999, gt=0, lt=1, description="AdamW's decay of squared gradients.")
    max_gradient_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a running average of the weights, which then replaces them; null: none.",
    )
    checkpoint_every: int = Field(
        0, ge=0, description="Steps between checkpoints, which are validated; 0: only after the last step."
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after this number of consecutive validations without an improvement; the best weights are "
        "kept. Null: train until the last step.",
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; the number may change rounding.")


class FineTuningParameters(LoopParameters):
    """Training of a model that may be large."""

    block: ClassVar[str] = "training"
    samples: ClassVar[str] = "samples"
    """For messages: the name of these parameters, and the plural of what a sample is."""

    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Samples per forward and backward pass of a process; gradients are accumulated. Null: all samples "
        "of the process in one pass.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, about a third more time."
    )
    seed: int = Field(0, description="Seed of all random numbers of the training.")

    @property
    def samples_per_pass(self) -> int:
        """Samples per forward and backward pass, if processes share the passes of a step."""
        return self.micro_batch_size or self.batch_size

    @property
    def passes(self) -> int:
        """Passes whose gradients make one step, over all processes together."""
        return self.batch_size // self.samples_per_pass

    def check_whole_passes(self) -> None:
        """Raise :class:`ValueError` unless a step is a whole number of passes."""
        if self.batch_size % self.samples_per_pass:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )

    def check_processes(self, processes: int) -> None:
        """Raise :class:`InputError` unless this number of processes can share the passes of a step evenly."""
        if self.passes % processes:
            raise InputError(
                f"{processes} processes cannot share the {self.passes} passes of a step evenly: a step has "
                f"{self.batch_size} {self.samples}, a pass {self.samples_per_pass}",
                remedy=f"Set batch_size to a multiple of {processes} times micro_batch_size",
                field=f"{self.block}.micro_batch_size",
            )

    def check_generator(self, dtype: str, processes: int) -> None:
        """Raise :class:`InputError` unless a generator of this precision can be trained by this number of processes."""
        if self.batch_size % processes:
            raise InputError(
                f"{self.batch_size} {self.samples} per step cannot be divided evenly among {processes} processes",
                field=f"{self.block}.batch_size",
                remedy="choose a multiple of the number of processes",
            )
        if dtype == "float16":
            raise InputError(
                "gradients vanish or overflow in float16",
                field="generator.dtype",
                remedy="train in bfloat16 or float32",
            )


class CheckpointParameters(Parameters):
    """Storage of states and results of trainings."""

    checkpoint_folder: str | None = Field(
        None,
        description="Folder of the checkpoints from which a killed training resumes, and of the results of finished "
        "trainings, which are not repeated. Null: none.",
    )
    kept_trainings: int = Field(
        4,
        ge=0,
        description="Number of checkpoints and results kept in the folder after a run, the most recently used.",
    )
    retrain: bool = Field(
        False, description="Train again even if the result of the same training is kept; also kedro run --retrain."
    )

    def checkpoint_file(self, identity: str) -> Path | None:
        """Return the checkpoint file of a training by its identity; None without a folder."""
        return Path(self.checkpoint_folder) / f"{identity}.safetensors" if self.checkpoint_folder else None
