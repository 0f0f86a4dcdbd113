"""Parameters of preference training."""

from __future__ import annotations

from typing import Literal, Optional, Self

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.generators.config import GeneratorParameters


class AdapterParameters(Parameters):
    """Low-rank adapter."""

    rank: int = Field(64, ge=1, description="Rank of the adapter.")
    alpha: float = Field(64.0, gt=0, description="Scale of the adapter; its output is multiplied by alpha / rank.")
    targets: Optional[list[str]] = Field(
        None, description="Names of the linear layers that get an adapter; null for the generator family's own."
    )


class PreferenceTrainingParameters(Parameters):
    """How a policy is trained on preference pairs."""

    method: Literal["lora", "full"] = Field(
        "lora",
        description="Train a low-rank adapter, whose reference is the network without it; or all weights, in float32 "
        "beside a frozen copy in the generator's precision.",
    )
    loss: Literal["diffusion_dpo", "flow_dpo", "reward_weighted", "mapo", "supervised"] = Field(
        "diffusion_dpo", description="Loss: a function of vr_pipeline.training.losses."
    )
    beta: float = Field(
        500.0,
        gt=0,
        description="Strength of the pull towards the reference, for mean-reduced errors; for mapo the weight of the "
        "margin, published as 0.1.",
    )
    beta_falls_with_noise: bool = Field(
        False,
        description="flow_dpo with beta (1 - t)^2, for ablation only: its authors found that it hacks the reward.",
    )
    supervised_weight: float = Field(0.0, ge=0, description="Weight of the winners' error added to the loss.")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed share of wrong labels.")
    rarity_exponent: float = Field(
        0.0, ge=0, description="Weigh pairs of rare rewards more, by this exponent (VideoDPO's alpha); 0 weighs alike."
    )
    rarity_bins: int = Field(20, ge=2, description="Bins of the histogram that says how rare a reward is.")
    steps: int = Field(500, ge=1, description="Optimiser steps.")
    batch_size: int = Field(32, ge=1, description="Pairs a step, over all processes together.")
    micro_batch_size: Optional[int] = Field(
        None,
        ge=1,
        description="Pairs that go through the network at once in a process; gradients add up. Null for all of its "
        "share of a step.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, about a third more time."
    )
    compile: Literal["none", "blocks", "denoiser"] = Field(
        "none",
        description="Compile the denoiser's repeated blocks, or all of it, by torch.compile: minutes at the start, "
        "faster steps after.",
    )
    sharding: Literal["none", "fsdp2"] = Field(
        "none",
        description="Spread weights, gradients and optimiser state of full training over the processes.",
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="AdamW with its state in 32 bits, or in 8 (needs bitsandbytes)."
    )
    learning_rate: float = Field(5e-6, gt=0, description="Peak learning rate.")
    warmup_steps: int = Field(100, ge=0, description="Steps of linear warm-up, followed by linear decay to zero.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    max_gradient_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    ema_decay: Optional[float] = Field(
        None, gt=0, lt=1, description="Decay of a running average of the weights, which is then the policy; null: none."
    )
    collapse_loss: float = Field(
        0.01,
        ge=0,
        description="Training stops if its loss over 25 steps is below this while winners are modelled worse than by "
        "the reference: losers are then pushed away and nothing is learned. 0 switches the rule off.",
    )
    checkpoint_every: int = Field(0, ge=0, description="Steps between checkpoints; 0 for none.")
    seed: int = Field(0, description="Seed of adapter, order, noise and timesteps.")
    threads: Optional[int] = Field(None, ge=1, description="CPU threads; another number may round differently.")
    adapter: AdapterParameters = Field(default_factory=AdapterParameters, description="Low-rank adapter.")

    @property
    def uses_reference(self) -> bool:
        """Whether the loss compares with the frozen reference."""
        return self.loss in ("diffusion_dpo", "flow_dpo")

    @property
    def uses_rewards(self) -> bool:
        """Whether the loss or the weights of pairs need the clips' rewards."""
        return self.loss == "reward_weighted" or self.rarity_exponent > 0

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        wrong = [
            (self.label_smoothing > 0 and not self.uses_reference, "label_smoothing needs a loss of preference (dpo)"),
            (self.rarity_exponent > 0 and not self.uses_reference, "rarity_exponent needs a loss of preference (dpo)"),
            (self.beta_falls_with_noise and self.loss != "flow_dpo", "beta_falls_with_noise belongs to flow_dpo"),
            (self.sharding != "none" and self.method != "full", "sharding is for method: full; adapters are small"),
            (self.sharding != "none" and self.compile != "none", "sharding and compile cannot be combined"),
            (self.sharding != "none" and self.optimizer != "adamw", "sharding needs optimizer: adamw"),
        ]
        for is_wrong, reason in wrong:
            if is_wrong:
                raise ValueError(reason)
        return self


class ValidationParameters(Parameters):
    """How checkpoints are judged; the one of highest mean reward becomes the policy."""

    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["validation"], min_length=1, description="Splits of the prompts for which checkpoints make clips."
    )
    num_prompts: Optional[int] = Field(
        None, ge=1, description="At most so many prompts, the first by identifier; null takes all."
    )
    videos_per_prompt: int = Field(1, ge=1, description="Clips a prompt, from the same seeds at every checkpoint.")
    seed: int = Field(30, description="Base seed of the clips.")
    folder: str = Field(
        "data/06_models/validation",
        description="Folder of the clips and answers of checkpoints, which are made once; it may be deleted when "
        "no training is under way.",
    )
    keep_judge: bool = Field(
        False, description="Keep the judge in memory between checkpoints, where it fits beside the training."
    )


class DpoTrainingParameters(Parameters):
    """The pipeline dpo_training."""

    generator_batch_size: Optional[int] = Field(
        None,
        ge=1,
        description="Clips that are encoded together before training, and sampled together for its validation; null "
        "for generator.batch_size.",
    )
    training: PreferenceTrainingParameters = Field(
        default_factory=PreferenceTrainingParameters, description="Training on preference pairs."
    )
    validation: Optional[ValidationParameters] = Field(
        None,
        description="Judging of checkpoints, after every training.checkpoint_every steps and after the last; null: the "
        "last step is the policy.",
    )
    checkpoints: Optional[str] = Field(
        None,
        description="Folder of the checkpoints from which a killed training goes on, and of the results of finished "
        "trainings, which are not done again. Null for none.",
    )
    kept_trainings: int = Field(
        4,
        ge=0,
        description="Checkpoints and results that are kept in the folder when a run has finished, those used last.",
    )
    retrain: bool = Field(
        False, description="Train again although the result of the same training is kept; kedro run --retrain."
    )
    shard_size: int = Field(
        64,
        ge=1,
        description="Clips, or prompts, whose latents or text conditions are kept in one file. Prompts of a file are "
        "encoded together, clips as many at a time as are sampled together.",
    )

    def trained(self, generator: GeneratorParameters) -> GeneratorParameters:
        """The configured generator as training uses it."""
        return generator.model_copy(update={"batch_size": self.generator_batch_size or generator.batch_size})
