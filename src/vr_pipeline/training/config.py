"""Parameters of preference training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import CheckpointParameters, FineTuningParameters, LoRAParameters
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.training.objectives import OBJECTIVES, Objective

if TYPE_CHECKING:
    LossName = str
else:
    LossName = Literal[tuple(OBJECTIVES)]


class SafeguardParameters(Parameters):
    """What keeps a training from wrecking the model."""

    sdpo_mu: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the winner's descent that the loser's gradient may not take away (SDPO, published as "
        "0.6): the loser's gradient is scaled for every pair so that a step does not raise the winner's error to first "
        "order. For losses that push losers away; null scales nothing.",
    )
    norm_ratio_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of a hinge on the norm of predictions, relative to the reference's, outside 1 / "
        "norm_ratio_limit to norm_ratio_limit; 0 for none.",
    )
    norm_ratio_limit: float = Field(
        1.1, gt=1, description="Ratio of norms above which, and below whose inverse, the hinge acts."
    )
    max_winner_change: float | None = Field(
        4.0,
        gt=0,
        description="The training goes wrong when the winners' error has risen above the original's by so many times "
        "that error, over window steps; null switches the rule off.",
    )
    max_norm_ratio: float | None = Field(
        3.0,
        gt=1,
        description="The training goes wrong when the norm of predictions on winners is above so many times that of "
        "the original, or below its inverse, over window steps; null switches the rule off.",
    )
    window: int = Field(
        5,
        ge=1,
        description="Steps over which the rules look, and between copies of the weights (two on the CPU), of which "
        "the last from before the trouble is kept.",
    )
    on_trouble: Literal["keep", "error", "warn"] = Field(
        "keep",
        description="What follows where a training goes wrong. keep: it ends with the best validated weights, else the "
        "last from before the trouble, else the original; error: it ends with an error; warn: it is said once.",
    )
    watch_reference: bool | None = Field(
        None,
        description="Compare the policy with the original at every step although the loss does not need it, for the "
        "log and the automatic stop: a pass without gradients. Null: where the original is at hand, so with an "
        "adapter, and not with full weights, which would need a frozen copy.",
    )


class PreferenceTrainingParameters(FineTuningParameters):
    """How a policy is trained on preference pairs. A sample is a pair."""

    method: Literal["lora", "full"] = Field(
        "lora",
        description="Train a low-rank adapter, whose reference is the network without it; or all weights, in float32 "
        "beside a frozen copy in the generator's precision.",
    )
    loss: LossName = Field("diffusion_dpo", description="Loss: a key of vr_pipeline.training.objectives.OBJECTIVES.")
    beta: float = Field(
        500.0,
        gt=0,
        description="Strength of the pull towards the reference, for mean-reduced errors; for mapo the weight of the "
        "margin, published as 0.1.",
    )
    strength: Literal["half_beta", "beta_t_omega"] = Field(
        "half_beta",
        description="Factor of diffusion_dpo: beta / 2, or beta T omega as in equation 2 of VisionReward, T being the "
        "generator's number of timesteps; at the same beta the second is 2 T omega times as strong.",
    )
    omega: float = Field(1.0, gt=0, description="The constant omega of strength: beta_t_omega.")
    floor: float = Field(
        0.0, ge=0, lt=0.5, description="linear_dpo: smallest weight of a pair; above 0 learned pairs keep a part."
    )
    regularisation: float = Field(1.0, ge=0, description="reg_dpo: weight of the winners' error.")
    mixing: float = Field(1.0, gt=0, description="nft: b, how far the compared policies lie from the original.")
    reference_draws: int | None = Field(
        None,
        ge=1,
        description="Draws of noise and time for each pair, used in turn by its epochs, for which the original's "
        "errors are computed once and kept beside the checkpoints, for all recipes; null draws anew in every epoch and "
        "keeps nothing.",
    )
    noise: Literal["drawn", "prior"] = Field(
        "drawn",
        description="Noise of a pair: drawn, the same for winner and loser; or prior, for rectified flows: each clip "
        "is noised along the noise that it was made from, which its seed gives.",
    )
    beta_falls_with_noise: bool = Field(
        False,
        description="flow_dpo with beta (1 - t)^2, for ablation only: its authors found that it hacks the reward.",
    )
    supervised_weight: float = Field(0.0, ge=0, description="Weight of the winners' error added to the loss.")
    safeguard: SafeguardParameters = Field(
        default_factory=SafeguardParameters, description="What keeps a training from wrecking the model."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed share of wrong labels.")
    rarity_exponent: float = Field(
        0.0, ge=0, description="Weigh pairs of rare rewards more, by this exponent (VideoDPO's alpha); 0 weighs alike."
    )
    rarity_bins: int = Field(20, ge=2, description="Bins of the histogram that says how rare a reward is.")
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
    collapse_loss: float = Field(
        0.01,
        ge=0,
        description="The training goes wrong when its loss over 25 steps is below this while winners are modelled "
        "worse than by the reference: losers are then pushed away and nothing is learned. 0 switches the rule off.",
    )
    lora: LoRAParameters = Field(default_factory=LoRAParameters, description="Low-rank adapter.")

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return OBJECTIVES[self.loss]

    @property
    def uses_reference(self) -> bool:
        """Whether the frozen original is asked at every step: for the loss, or to see how far the policy has gone."""
        guard = self.safeguard
        watched = self.method == "lora" if guard.watch_reference is None else guard.watch_reference
        return self.objective.needs_reference or guard.norm_ratio_weight > 0 or watched

    def draw_of(self, epoch: int) -> int:
        """Return which draw of noise and time an epoch uses; negative ones are no training's."""
        return epoch if self.reference_draws is None or epoch < 0 else epoch % self.reference_draws

    @property
    def uses_rewards(self) -> bool:
        """Whether the loss or the weights of pairs need the clips' rewards."""
        return self.objective.needs_rewards or self.rarity_exponent > 0

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        optional = {name for objective in OBJECTIVES.values() for name in objective.settings} - {"beta"}
        for name in sorted(optional.difference(self.objective.settings)):
            if getattr(self, name) != type(self).model_fields[name].default:
                knowing = ", ".join(loss for loss, objective in OBJECTIVES.items() if name in objective.settings)
                raise ValueError(f"{name} does not go with loss {self.loss}, but with {knowing}")
        opposing = ", ".join(name for name, objective in OBJECTIVES.items() if objective.opposes_losers)
        wrong = [
            (
                self.reference_draws is not None and (self.objective.takes("deviation") or self.objective.of_segments),
                f"reference_draws keeps errors of clips, and loss {self.loss} needs whole predictions of the original",
            ),
            (
                self.supervised_weight > 0 and self.objective.of_clips,
                f"supervised_weight needs winners, and loss {self.loss} learns from single clips",
            ),
            (
                self.omega != 1.0 and self.strength != "beta_t_omega",
                "omega goes with strength: beta_t_omega",
            ),
            (
                self.safeguard.sdpo_mu is not None and not self.objective.opposes_losers,
                f"safeguard.sdpo_mu does not go with loss {self.loss}, which pushes no loser away, but with {opposing}",
            ),
            (self.lora.dropout > 0, "lora.dropout would make policy and reference different networks: set it to 0"),
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
    num_prompts: int | None = Field(
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
    keep_weights: bool | None = Field(
        None,
        description="Keep the weights of every judged checkpoint, also in MLflow; null keeps adapters, but not full "
        "weights, which take gigabytes each.",
    )


class DpoTrainingParameters(CheckpointParameters):
    """The pipeline dpo_training."""

    generator_batch_size: int | None = Field(
        None,
        ge=1,
        description="Clips that are encoded together before training, and sampled together for its validation; null "
        "for generator.batch_size.",
    )
    training: PreferenceTrainingParameters = Field(
        default_factory=PreferenceTrainingParameters, description="Training on preference pairs."
    )
    validation: ValidationParameters | None = Field(
        None,
        description="Judging of checkpoints, after every training.checkpoint_every steps and after the last; null: the "
        "last step is the policy.",
    )
    held_out_pairs: int = Field(
        32,
        ge=0,
        description="Where pairs are given and no reward judges checkpoints: pairs of held-out prompts whose implicit "
        "accuracy is logged after every training.checkpoint_every steps, number; 0 measures none.",
    )
    held_out_draws: int = Field(4, ge=1, description="Draws of noise and time for each of these pairs, number.")
    shard_size: int = Field(
        64,
        ge=1,
        description="Clips, or prompts, whose latents or text conditions are kept in one file. Prompts of a file are "
        "encoded together, clips as many at a time as are sampled together.",
    )

    recipes: dict[str, dict[str, Any]] = Field(
        default={},
        description="What a recipe trains with instead of what 'training' says: recipe to settings of 'training'.",
    )

    @model_validator(mode="after")
    def _recipes_can_be_trained(self) -> Self:
        for name in self.recipes:
            try:
                self.for_recipe(name)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place = ".".join(["recipes", name, *map(str, first["loc"])])
                raise ValueError(f"{place}: {first['msg']}") from error
        return self

    def for_recipe(self, name: str) -> Self:
        """Return the parameters with what the recipe trains with otherwise."""
        own = self.recipes.get(name)
        if not own:
            return self
        settings = self.training.model_dump()
        for key, value in own.items():
            both = isinstance(value, Mapping) and isinstance(settings.get(key), Mapping)
            settings[key] = {**settings[key], **value} if both else value
        return self.model_copy(update={"training": PreferenceTrainingParameters.model_validate(settings)})

    def trained(self, generator: GeneratorParameters) -> GeneratorParameters:
        """Return the configured generator as training uses it."""
        return generator.model_copy(update={"batch_size": self.generator_batch_size or generator.batch_size})
