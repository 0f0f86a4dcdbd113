"""Shared parameters of reward trainings on vision-language models."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, Self, TypeVar

from pydantic import Field

from vr_pipeline.engine.config import (
    CheckpointParameters,
    FineTuningParameters,
    LoRAParameters,
    ScheduleName,
    with_default,
)
from vr_pipeline.vlm.families.base import Family


class RewardTrainingParameters(FineTuningParameters, CheckpointParameters):
    """Trained parts of the model, length of training, and reading of clips."""

    vision: Literal["full", "frozen"] = Field("full", description="Train the vision tower fully or not.")
    language: Literal["lora", "full", "frozen"] = Field(
        "lora", description="Train the language model by LoRA, fully, or not."
    )
    lora: LoRAParameters = Field(
        default_factory=lambda: LoRAParameters(rank=64, alpha=128.0),
        description="LoRA of the language model.",
    )
    epochs: float | None = Field(
        None, gt=0, description="Passes over the training samples, instead of 'steps'; null for 'steps'."
    )
    warmup_share: float | None = Field(
        None, ge=0, le=1, description="Share of warm-up steps, instead of 'warmup_steps'; null for 'warmup_steps'."
    )
    learning_rate: float = with_default(FineTuningParameters, "learning_rate", 2e-6)
    schedule: ScheduleName = with_default(FineTuningParameters, "schedule", "constant")
    warmup_steps: int = with_default(FineTuningParameters, "warmup_steps", 0)
    checkpoint_every: int = with_default(FineTuningParameters, "checkpoint_every", 500)
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Samples per forward and backward pass; it must divide batch_size, and the number of processes "
        "must divide the passes per step. Null for all samples of a step.",
    )
    memory_mb: float = Field(
        8000.0,
        ge=0,
        description="Cache of prepared clips per process, in megabytes; other clips are read on each use.",
    )
    reader_threads: int = Field(4, ge=1, description="Threads that decode clips.")


class Scheduled(Protocol):
    """Settings for the length of a training."""

    @property
    def epochs(self) -> float | None: ...
    @property
    def steps(self) -> int: ...
    @property
    def warmup_share(self) -> float | None: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    def model_copy(self, *, update: Mapping[str, Any]) -> Self: ...


Settings = TypeVar("Settings", bound=Scheduled)


def for_samples(given: Settings, count: float) -> Settings:
    """Return settings with steps and warm-up computed from ``epochs`` and ``warmup_share`` for ``count`` samples."""
    steps = math.ceil(given.epochs * count / given.batch_size) if given.epochs is not None else given.steps
    warmup = round(given.warmup_share * steps) if given.warmup_share is not None else given.warmup_steps
    return given.model_copy(update={"steps": steps, "warmup_steps": warmup})


class Loaded(Protocol):
    """Settings of a model at the start of a training."""

    @property
    def dtype(self) -> str: ...


def precision_of(family: Family, start: Loaded | None) -> AbstractContextManager[Any]:
    """Return the precision of activations that the settings of the model at the start define."""
    import torch

    assert start is not None
    return family.autocast(getattr(torch, start.dtype))
