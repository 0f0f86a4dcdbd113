"""Parameters of the training of pairwise rewards."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import (
    CheckpointParameters,
    FineTuningParameters,
    LoRAParameters,
    ScheduleName,
    with_default,
)
from vr_pipeline.rewards.videoreward.settings import NetworkSettings, VideoRewardSettings
from vr_pipeline.vlm.config import JudgeParameters


class HeldOutParameters(Parameters):
    """Which pairs are not trained on. Prompts are drawn by a hash, so that all pairs of a prompt are on one side."""

    validation_share: float = Field(
        0.1, gt=0, lt=1, description="Share of the prompts that choose the checkpoint and the calibration."
    )
    test_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the prompts that are reported on only; 0 reports on those of validation.",
    )
    seed: int = Field(0, description="Seed of the hash.")
    bootstrap_samples: int = Field(
        500, ge=0, description="Draws of prompts behind the intervals of the report; 0 for none."
    )

    @model_validator(mode="after")
    def _something_is_left(self) -> HeldOutParameters:
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave nothing to train on: lower them below 1 together")
        return self


class PreferenceRewardTrainingParameters(FineTuningParameters, CheckpointParameters):
    """The pipeline preference_reward_training. A sample is a pair of clips under one prompt."""

    start: JudgeParameters | None = Field(
        None, description="The vision-language model that training starts from, with a new head and new tokens."
    )
    network: NetworkSettings | None = Field(
        None, description="Dimensions, texts, head and pooling of a new reward; with 'start' only."
    )
    start_reward: VideoRewardSettings | None = Field(
        None, description="A VideoReward's folder that training starts from, instead of 'start'."
    )
    loss: Literal["bt", "btt", "regression"] = Field(
        "btt",
        description="bt: Bradley-Terry, which learns nothing from ties; btt: Bradley-Terry with ties; regression: "
        "squared error of grades.",
    )
    theta: float = Field(5.0, gt=1, description="Width of ties of the loss btt, or where it starts.")
    learn_theta: bool = Field(False, description="Train the width of ties too; it stays above 1.")
    theta_learning_rate: float = Field(1e-2, gt=0, description="Peak learning rate of the width of ties.")
    grade_centre: float = Field(3.0, description="What the loss regression takes off a grade.")
    grade_range: tuple[float, float] = Field((1.0, 5.0), description="Lowest and highest grade there is.")
    keep_ties: bool = Field(
        True, description="Train on pairs that are tied in every dimension too; the loss bt never does."
    )
    vision: Literal["full", "frozen"] = Field("full", description="Train the vision tower in full, or not at all.")
    language: Literal["lora", "full", "frozen"] = Field(
        "lora", description="Train a low-rank update of the language model, all of it, or nothing."
    )
    lora: LoRAParameters = Field(
        default_factory=lambda: LoRAParameters(rank=64, alpha=128.0),
        description="The low-rank update of the language model.",
    )
    token_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the special tokens' embeddings; null for learning_rate."
    )
    head_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the head; null for learning_rate."
    )
    epochs: float | None = Field(
        None, gt=0, description="Times that every training pair is seen, instead of 'steps'; null for 'steps'."
    )
    warmup_share: float | None = Field(
        None, ge=0, le=1, description="Share of the steps that are warm-up, instead of 'warmup_steps'; null for these."
    )
    learning_rate: float = with_default(FineTuningParameters, "learning_rate", 2e-6)
    schedule: ScheduleName = with_default(FineTuningParameters, "schedule", "constant")
    warmup_steps: int = with_default(FineTuningParameters, "warmup_steps", 0)
    checkpoint_every: int = with_default(FineTuningParameters, "checkpoint_every", 500)
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Pairs in one forward and backward pass: a divisor of batch_size. Processes share the passes of a "
        "step, so their number divides that of passes. Null for all pairs of the step.",
    )
    held_out: HeldOutParameters = Field(default_factory=HeldOutParameters, description="Pairs that are not trained on.")
    memory_mb: float = Field(
        8000.0,
        ge=0,
        description="Prepared clips kept in memory by a process, in megabytes; further clips are read each time they "
        "are used.",
    )
    reader_threads: int = Field(4, ge=1, description="Threads that decode clips.")

    @property
    def pairs_per_pass(self) -> int:
        """Pairs that go through the network at once."""
        return self.micro_batch_size or self.batch_size

    @property
    def passes(self) -> int:
        """Passes whose gradients make one step, over all processes together."""
        return self.batch_size // self.pairs_per_pass

    def for_pairs(self, count: int) -> PreferenceRewardTrainingParameters:
        """Return these with the steps and the warm-up that ``epochs`` and ``warmup_share`` are for so many pairs."""
        steps = math.ceil(self.epochs * count / self.batch_size) if self.epochs is not None else self.steps
        warmup = round(self.warmup_share * steps) if self.warmup_share is not None else self.warmup_steps
        return self.model_copy(update={"steps": steps, "warmup_steps": warmup})

    @model_validator(mode="after")
    def _consistent(self) -> PreferenceRewardTrainingParameters:
        if (self.start is None) == (self.start_reward is None):
            raise ValueError("give either 'start' (a vision-language model) or 'start_reward' (a reward's folder)")
        if (self.start is None) != (self.network is None):
            raise ValueError("give 'network' (dimensions and texts) together with 'start'; a reward has its own")
        if self.start is not None and self.start.quantisation != "none":
            raise ValueError("a quantised model cannot be trained here: set quantisation of 'start' to none")
        if self.batch_size % self.pairs_per_pass:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}")
        if self.grade_range[0] >= self.grade_range[1]:
            raise ValueError("'grade_range' is from the lowest grade to the highest")
        return self
