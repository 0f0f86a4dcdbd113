"""Parameters of the training of latent rewards."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import CheckpointParameters, FineTuningParameters, ScheduleName, with_default
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.latent_reward import LatentRewardNetworkParameters, LatentRewardSettings
from vr_pipeline.rewards.training.held_out import HeldOutParameters
from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters
from vr_pipeline.video.fit import FitParameters


class LatentDimensionParameters(Parameters):
    """A score of the latent reward."""

    name: str = Field(pattern=r"^[A-Za-z0-9_]+$", description="Name of the score.")
    criterion: str = Field(
        "",
        description="Source of its labels: for generated clips the column dim_<criterion> of the rewards, for people's "
        "preferences the column preference_<criterion>; empty: its name.",
    )

    @property
    def labelled_by(self) -> str:
        """Criterion of its labels."""
        return self.criterion or self.name


class OwnPairParameters(Parameters):
    """Pairs of generated clips, labelled by the rewards of their dimensions."""

    pairs_per_prompt: int | None = Field(
        200, ge=1, description="Pairs per prompt, drawn by a hash of their identifiers; null: all pairs of clips."
    )
    tie_width: float = Field(
        0.0,
        ge=0,
        description="Largest difference of rewards that counts as a tie, in standard deviations of the dimension over "
        "all clips.",
    )


class LatentRewardTrainingParameters(FineTuningParameters, CheckpointParameters):
    """The pipeline latent_reward_training. A sample is a pair of clips under one prompt, at one time and noise."""

    block: ClassVar[str] = "latent_reward_training"
    samples: ClassVar[str] = "pairs"

    dimensions: tuple[LatentDimensionParameters, ...] | None = Field(
        None, min_length=1, description="Dimensions to score; null for every dimension or criterion of the data."
    )
    network: LatentRewardNetworkParameters = Field(
        default_factory=LatentRewardNetworkParameters, description="Blocks of the generator, and how they are pooled."
    )
    own_pairs: OwnPairParameters = Field(
        default_factory=OwnPairParameters, description="Pairing and labelling of generated clips."
    )
    fit: FitParameters = Field(default_factory=FitParameters, description="Fitting of compared clips to the generator.")
    loss: Literal["bt", "btt"] = Field(
        "btt", description="bt: Bradley-Terry, which learns nothing from ties; btt: Bradley-Terry with ties."
    )
    theta: float = with_default(PreferenceRewardTrainingParameters, "theta", 5.0)
    grade_range: tuple[float, float] = with_default(PreferenceRewardTrainingParameters, "grade_range", (1.0, 5.0))
    keep_ties: bool = with_default(PreferenceRewardTrainingParameters, "keep_ties", True)
    times: tuple[float, float] = Field(
        (0.0, 1.0),
        description="Range of uniformly drawn times, from 0 (the clip) to 1 (pure noise); 0 and 0: clean latents.",
    )
    learning_rate: float = with_default(FineTuningParameters, "learning_rate", 1e-5)
    schedule: ScheduleName = with_default(FineTuningParameters, "schedule", "constant")
    warmup_steps: int = with_default(FineTuningParameters, "warmup_steps", 50)
    held_out: HeldOutParameters = Field(default_factory=HeldOutParameters, description="Pairs that are not trained on.")
    validation_times: int = Field(
        4, ge=1, description="Number of times, evenly spaced over 'times', at which validation pairs are compared."
    )
    report_bins: int = Field(10, ge=1, description="Bins of time, from 0 to 1, in which accuracy is reported.")
    generator_batch_size: int | None = Field(
        None, ge=1, description="Batch size for encoding clips; null: generator.batch_size."
    )
    shard_size: int = Field(64, ge=1, description="Clips, or prompts, per file of latents or text conditions.")

    @model_validator(mode="after")
    def _consistent(self) -> LatentRewardTrainingParameters:
        LatentRewardSettings(dimensions=("any",), network=self.network, times=self.times, base="")
        if self.grade_range[0] >= self.grade_range[1]:
            raise ValueError("'grade_range' must be [lowest grade, highest grade]")
        names = [one.name for one in self.dimensions or ()]
        if len(set(names)) != len(names):
            raise ValueError("two dimensions have the same name")
        return self

    def encoded(self, generator: GeneratorParameters) -> GeneratorParameters:
        """Return the configured generator as it encodes clips and prompts."""
        return generator.model_copy(update={"batch_size": self.generator_batch_size or generator.batch_size})
