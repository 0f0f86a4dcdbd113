"""Parameters of the micro-world."""

from __future__ import annotations

from pydantic import Field

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import CheckpointParameters, LoopParameters, ScheduleName, with_default


class ClipParameters(Parameters):
    """How many clips are made for what, and how flawed the rendered ones are."""

    num_pretraining_clips: int = Field(6000, ge=48, description="Rendered clips the generator is pretrained on.")
    num_oracle_clips: int = Field(4000, ge=48, description="Rendered clips the oracle is fitted on.")
    num_judge_clips: int = Field(5760, ge=48, description="Rendered clips the judge is trained on.")
    num_generated_judge_clips: int = Field(
        3072, ge=0, description="Clips of the pretrained generator the judge is trained on, labelled by the oracle."
    )
    num_held_out_clips: int = Field(
        960, ge=48, description="Clips, rendered and generated each, on which oracle and judge are tested."
    )
    flaw_scale: float = Field(1.0, ge=0, le=1.5, description="Multiplies the probability of every flaw.")


class PretrainingParameters(LoopParameters, CheckpointParameters):
    """How the tiny generator is trained from scratch. A sample is a clip."""

    steps: int = with_default(LoopParameters, "steps", 3000)
    batch_size: int = with_default(LoopParameters, "batch_size", 64)
    learning_rate: float = with_default(LoopParameters, "learning_rate", 3e-3)
    schedule: ScheduleName = with_default(LoopParameters, "schedule", "cosine_throughout")
    weight_decay: float = with_default(LoopParameters, "weight_decay", 0.01)
    ema_decay: float | None = with_default(LoopParameters, "ema_decay", 0.995)
    threads: int | None = with_default(LoopParameters, "threads", 1)
    caption_noise: float = Field(
        0.05, ge=0, le=1, description="Share of clips with a random prompt; leaves headroom for preference training."
    )
    num_layers: int = Field(4, ge=1, description="Transformer blocks.")
    num_attention_heads: int = Field(4, ge=1, description="Attention heads of 24 channels each.")


class AnnotatorParameters(Parameters):
    """How a simulated person compares two clips."""

    temperature: float = Field(
        0.6, gt=0, description="Spread of the simulated annotator: difference in utility at odds of e to 1."
    )
    tie_width: float = Field(0.25, ge=0, description="Perceived differences below this are ties.")


class CriterionParameters(AnnotatorParameters):
    """How a simulated person compares two clips in one criterion, which is easier to see than all together.

    Width and temperature make theta of the Bradley-Terry model with ties exp(1.6), about 5, which is the usual one.
    """

    temperature: float = with_default(AnnotatorParameters, "temperature", 0.15)
    tie_width: float = with_default(AnnotatorParameters, "tie_width", 0.24)


class ComparisonParameters(AnnotatorParameters):
    """How simulated people compare two clips, on the whole and by criterion."""

    criteria: CriterionParameters = Field(
        default_factory=CriterionParameters, description="The same of a comparison in one criterion."
    )


class PreferenceParameters(ComparisonParameters):
    """How people's preferences are simulated."""

    num_pairs: int = Field(480, ge=2, description="Pairs of clips that are compared.")
    clips_per_prompt: int = Field(5, ge=2, description="Generated clips of each prompt the pairs are drawn from.")


class RewardPairParameters(ComparisonParameters):
    """What the embedded VideoReward learns from: generated clips, and simulated comparisons of them."""

    clips_per_prompt: int = Field(60, ge=2, description="Generated clips of each prompt the pairs are drawn from.")
    num_pairs: int = Field(9600, ge=2, description="Pairs of clips that are compared, to learn from.")
    num_held_out_clips_per_prompt: int = Field(
        16, ge=2, description="Further clips of each prompt, for the pairs of held-out prompts."
    )
    num_held_out_pairs: int = Field(2400, ge=2, description="Pairs of held-out prompts.")
    cross_prompt_share: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Share of pairs in which one clip was made for a prompt that differs in one or two attributes; "
        "without them a reward can learn text alignment and ignore the prompt.",
    )


class MicroWorldParameters(Parameters):
    """Everything about the embedded default that is not part of the method."""

    seed: int = Field(0, description="Seed of everything the micro-world makes.")
    clips: ClipParameters = Field(default_factory=ClipParameters, description="Rendered and generated clips.")
    pretraining: PretrainingParameters = Field(
        default_factory=PretrainingParameters, description="Training of the generator."
    )
    preferences: PreferenceParameters = Field(
        default_factory=PreferenceParameters, description="Simulated preferences."
    )
    reward_pairs: RewardPairParameters = Field(
        default_factory=RewardPairParameters, description="Clips and comparisons for the VideoReward."
    )
