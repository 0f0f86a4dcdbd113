"""Parameters of preference training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import CheckpointParameters, FineTuningParameters, LoRAParameters
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.training.objectives import OBJECTIVES, Objective

if TYPE_CHECKING:
    LossName = str
else:
    LossName = Literal[tuple(OBJECTIVES)]


class SafeguardParameters(Parameters):
    """Safeguards that keep a training from damaging the model."""

    sdpo_mu: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the winner's descent that the loser's gradient must preserve (SDPO, published as 0.6): "
        "the loser's gradient of every pair is scaled so that, to first order, a step does not raise the winner's "
        "error. For losses that push losers away; null disables scaling.",
    )
    norm_ratio_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of a hinge on the norm of predictions, relative to the reference's, outside 1 / "
        "norm_ratio_limit to norm_ratio_limit; 0 for none.",
    )
    norm_ratio_limit: float = Field(
        1.1, gt=1, description="The hinge acts on ratios of norms above this, or below its inverse."
    )
    max_winner_change: float | None = Field(
        4.0,
        gt=0,
        description="A training fails when the winners' error, over window steps, exceeds the original's by more than "
        "this multiple of it; null disables the rule.",
    )
    max_norm_ratio: float | None = Field(
        3.0,
        gt=1,
        description="A training fails when the norm of predictions on winners, relative to the original's, is above "
        "this or below its inverse, over window steps; null disables the rule.",
    )
    window: int = Field(
        5,
        ge=1,
        description="Steps in the window of the rules, and between copies of the weights (two on the CPU); the last "
        "copy from before the failure is kept.",
    )
    on_trouble: Literal["keep", "error", "warn"] = Field(
        "keep",
        description="When a training fails: keep ends it with the best validated weights, else the last ones from "
        "before the failure, else the original; error ends it with an error; warn warns once and continues.",
    )
    watch_reference: bool | None = Field(
        None,
        description="Compare the policy with the original at every step, by a pass without gradients, even if the loss "
        "does not need it: for the log and the automatic stop. Null: with an adapter, but not with full weights, which "
        "would need a frozen copy.",
    )


class PreferenceTrainingParameters(FineTuningParameters):
    """Training of a policy on preference pairs. A sample is a pair."""

    samples: ClassVar[str] = "pairs"

    method: Literal["lora", "full"] = Field(
        "lora",
        description="lora: train a low-rank adapter; the reference is the network without it. full: train all weights "
        "in float32, with a frozen copy in the generator's precision as reference.",
    )
    loss: LossName = Field("diffusion_dpo", description="Loss: a key of vr_pipeline.training.objectives.OBJECTIVES.")
    beta: float = Field(
        500.0,
        gt=0,
        description="Strength of regularisation towards the reference, for mean-reduced errors; for mapo the weight of "
        "the margin, published as 0.1.",
    )
    strength: Literal["half_beta", "beta_t_omega"] = Field(
        "half_beta",
        description="Factor of diffusion_dpo: beta / 2, or beta T omega as in equation 2 of VisionReward, T being the "
        "generator's number of timesteps; at the same beta the second is 2 T omega times as strong.",
    )
    omega: float = Field(1.0, gt=0, description="The constant omega of strength: beta_t_omega.")
    floor: float = Field(
        0.0, ge=0, lt=0.5, description="linear_dpo: smallest weight of a pair; above 0, learned pairs still count."
    )
    regularisation: float = Field(1.0, ge=0, description="reg_dpo: weight of the winners' error.")
    mixing: float = Field(1.0, gt=0, description="nft: b, the distance of the compared policies from the original.")
    reference_draws: int | None = Field(
        None,
        ge=1,
        description="Draws of noise and time per pair, which the epochs use in turn; the original's errors for them "
        "are computed once and stored beside the checkpoints, for all recipes. Null: new draws in every epoch.",
    )
    noise: Literal["drawn", "prior"] = Field(
        "drawn",
        description="Noise of a pair. drawn: random, the same for winner and loser; prior, for rectified flows: each "
        "clip gets the initial noise from which it was sampled, by its seed.",
    )
    beta_falls_with_noise: bool = Field(
        False,
        description="flow_dpo with beta (1 - t)^2, for ablations only: its authors report reward hacking.",
    )
    supervised_weight: float = Field(0.0, ge=0, description="Weight of the winners' error added to the loss.")
    safeguard: SafeguardParameters = Field(
        default_factory=SafeguardParameters, description="Safeguards against damage to the model."
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Assumed share of wrong labels.")
    rarity_exponent: float = Field(
        0.0,
        ge=0,
        description="Exponent of the weights of pairs with rare rewards (VideoDPO's alpha); 0: equal weights.",
    )
    rarity_bins: int = Field(20, ge=2, description="Bins of the histogram that measures how rare a reward is.")
    compile: Literal["none", "blocks", "denoiser"] = Field(
        "none",
        description="Compile the denoiser's repeated blocks, or all of it, with torch.compile: takes minutes at the "
        "start, then steps are faster.",
    )
    sharding: Literal["none", "fsdp2"] = Field(
        "none",
        description="Distribute weights, gradients and optimiser state of full training over the processes.",
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="AdamW with its state in 32 bits, or in 8 (needs bitsandbytes)."
    )
    collapse_loss: float = Field(
        0.01,
        ge=0,
        description="A training fails when its loss over 25 steps is below this while winners are modelled worse than "
        "by the reference: it then only pushes losers away. 0 disables the rule.",
    )
    lora: LoRAParameters = Field(default_factory=LoRAParameters, description="Low-rank adapter.")

    @property
    def objective(self) -> Objective:
        """The objective of the configured loss."""
        return OBJECTIVES[self.loss]

    @property
    def uses_reference(self) -> bool:
        """Whether every step evaluates the frozen original: for the loss, or to measure the policy's distance."""
        guard = self.safeguard
        watched = self.method == "lora" if guard.watch_reference is None else guard.watch_reference
        return self.objective.needs_reference or guard.norm_ratio_weight > 0 or watched

    def draw_of(self, epoch: int) -> int:
        """Return the number of the draw of noise and time of an epoch; negative epochs are outside a training."""
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
                raise ValueError(f"{name} has no effect with loss {self.loss}, only with {knowing}")
        opposing = ", ".join(name for name, objective in OBJECTIVES.items() if objective.opposes_losers)
        wrong = [
            (
                self.reference_draws is not None and (self.objective.takes("deviation") or self.objective.of_segments),
                f"reference_draws stores errors of clips, but loss {self.loss} needs full predictions of the original",
            ),
            (
                self.supervised_weight > 0 and self.objective.of_clips,
                f"supervised_weight needs winners, but loss {self.loss} learns from single clips",
            ),
            (
                self.omega != 1.0 and self.strength != "beta_t_omega",
                "omega needs strength: beta_t_omega",
            ),
            (
                self.safeguard.sdpo_mu is not None and not self.objective.opposes_losers,
                f"safeguard.sdpo_mu has no effect with loss {self.loss}, which does not push losers away, only with "
                f"{opposing}",
            ),
            (self.lora.dropout > 0, "lora.dropout would make policy and reference differ: set it to 0"),
            (self.sharding != "none" and self.method != "full", "sharding is for method: full; adapters are small"),
            (self.sharding != "none" and self.compile != "none", "sharding and compile cannot be combined"),
            (self.sharding != "none" and self.optimizer != "adamw", "sharding needs optimizer: adamw"),
        ]
        for is_wrong, reason in wrong:
            if is_wrong:
                raise ValueError(reason)
        return self


class AlarmParameters(Parameters):
    """Alarm for reward hacking: the training's reward rises and a held-out reward does not, on the same prompts."""

    action: Literal["report", "choose", "stop"] = Field(
        "report",
        description="Effect of an alarm. report: log, table and report page show it. choose: also, the policy is the "
        "best checkpoint no later than the one since which the alarm holds. stop: as choose, and the training ends.",
    )
    signal: Literal["excess", "fall"] = Field(
        "excess",
        description="excess: the training's reward rises more than a hold-out explains by the slope of the one on the "
        "other over the original's clips (totals; the alarm names the dimension with the largest part). fall: a "
        "hold-out falls while the training's reward rises.",
    )
    smallest: float = Field(
        0.1,
        ge=0,
        description="Smallest excess that counts, as a part of the rise of the training's reward since the original.",
    )
    agreement: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Smallest correlation with the training's reward, over the original's clips, at which a hold-out "
        "can show an excess; others measure something else and explain nothing.",
    )
    level: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Bound on the probability of a false alarm in a whole training. A lower one needs more validation "
        "prompts: at least log2(checkpoints / level).",
    )
    rise_level: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Largest p-value at which the training's reward counts as risen since the checkpoint with which a "
        "hold-out is compared (Student's one-sided paired test over prompts). 1: any rise of its mean.",
    )
    dimensions: Literal["all", "unseen", "none"] = Field(
        "all",
        description="Dimensions of hold-outs that can raise an alarm. unseen: not while the training's own reward has "
        "a dimension of the same name and shows that it fell; none: only totals.",
    )


class ValidationParameters(Parameters):
    """Judging of checkpoints; the one with the highest mean reward becomes the policy."""

    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["validation"], min_length=1, description="Splits of the prompts for which checkpoints make clips."
    )
    num_prompts: int | None = Field(
        None, ge=1, description="Maximum number of prompts, the first by identifier; null: all."
    )
    videos_per_prompt: int = Field(1, ge=1, description="Clips per prompt, from the same seeds at every checkpoint.")
    seed: int = Field(30, description="Base seed of the clips.")
    folder: str = Field(
        "data/06_models/validation",
        description="Folder of the checkpoints' clips and answers, which are made once; it may be deleted while no "
        "training runs.",
    )
    hold_outs: dict[str, RewardModelParameters | None] = Field(
        default={},
        description="Rewards, by name, that also score the clips of every checkpoint but do not select one. If they do "
        "not rise with the training's reward, the policy is over-optimised. null removes one of an extended "
        "environment.",
    )
    hold_out_questions: bool = Field(
        False,
        description="Also hold out the reward of the other half of the questions (weight_regression.questions: half), "
        "as other_half; the judge's answers are used for both.",
    )
    alarm: AlarmParameters | None = Field(
        default_factory=AlarmParameters, description="Alarm for reward hacking by the hold-outs; null: none."
    )
    bound: Literal["none", "mean", "interval"] = Field(
        "none",
        description="Reject checkpoints with a dimension of the reward below the original: mean: its mean on the "
        "validation prompts; interval: its whole 95 % interval (joint for all dimensions), which needs five prompts. "
        "If all are rejected, the policy is the original.",
    )
    keep_judge: bool = Field(
        False, description="Keep the judge in memory between checkpoints, if it fits beside the training."
    )
    keep_weights: bool | None = Field(
        None,
        description="Keep the weights of every judged checkpoint, also in MLflow; null: adapters only, since full "
        "weights take gigabytes each.",
    )


class DpoTrainingParameters(CheckpointParameters):
    """The pipeline dpo_training."""

    generator_batch_size: int | None = Field(
        None,
        ge=1,
        description="Batch size for encoding clips before training and for sampling in validation; null: "
        "generator.batch_size.",
    )
    training: PreferenceTrainingParameters = Field(
        default_factory=PreferenceTrainingParameters, description="Training on preference pairs."
    )
    validation: ValidationParameters | None = Field(
        None,
        description="Judging of checkpoints, after every training.checkpoint_every steps and after the last; null: the "
        "policy has the weights of the last step.",
    )
    held_out_pairs: int = Field(
        32,
        ge=0,
        description="For given pairs without a reward that judges checkpoints: number of pairs of held-out prompts "
        "whose implicit accuracy is logged after every training.checkpoint_every steps; 0: none.",
    )
    held_out_draws: int = Field(4, ge=1, description="Draws of noise and time for each of these pairs.")
    shard_size: int = Field(
        64,
        ge=1,
        description="Clips, or prompts, per file of latents or text conditions. Prompts of a file are encoded in one "
        "batch, clips in batches of generator_batch_size.",
    )

    recipes: dict[str, dict[str, Any]] = Field(
        default={},
        description="Settings by recipe that override those of 'training'.",
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

    @model_validator(mode="after")
    def _weights_are_kept_to_go_back(self) -> Self:
        validation = self.validation
        if validation is None:
            return self
        alarm = "report" if validation.alarm is None else validation.alarm.action
        if alarm != "report" and not (validation.hold_outs or validation.hold_out_questions):
            raise ValueError(f"validation.alarm.action: {alarm} needs validation.hold_outs")
        kept = self.training.method == "lora" if validation.keep_weights is None else validation.keep_weights
        for name, value, off in (("alarm.action", alarm, "report"), ("bound", validation.bound, "none")):
            if value != off and not kept:
                raise ValueError(
                    f"validation.{name}: {value} goes back to an earlier checkpoint and needs its weights: set "
                    "validation.keep_weights to true"
                )
        return self

    def for_recipe(self, name: str) -> Self:
        """Return the parameters with a recipe's settings."""
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
