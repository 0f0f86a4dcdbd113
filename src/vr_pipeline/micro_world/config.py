"""Parameters of the micro-world."""

from typing import Annotated

from pydantic import Field

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import CheckpointParameters, LoopParameters, ScheduleName, with_default


class SceneParameters(Parameters):
    """How speed and flaws of rendered clips are drawn: what the generator can choose between.

    The greater the difference of flaws between speeds, the more a clip that moves fast loses in other dimensions.
    """

    flaw_scale_by_speed: tuple[Annotated[float, Field(ge=0, le=3)], ...] = Field(
        (0.7, 1.0, 1.4),
        min_length=3,
        max_length=3,
        description="Multiplies the probability of every flaw in slow, medium and fast clips.",
    )
    fast_share: float | None = Field(
        None, ge=0, le=1, description="Share of fast clips; the others are slow or medium; null: each speed a third."
    )


class ClipParameters(Parameters):
    """Numbers of clips by purpose, and flaws of rendered clips."""

    num_pretraining_clips: int = Field(6000, ge=48, description="Rendered clips on which the generator is pretrained.")
    num_oracle_clips: int = Field(4000, ge=48, description="Rendered clips on which the oracle is fitted.")
    num_auditor_clips: int = Field(
        12000, ge=48, description="Rendered clips on which the auditor is fitted, and no other model."
    )
    num_judge_clips: int = Field(5760, ge=48, description="Rendered clips on which the judge is trained.")
    num_generated_judge_clips: int = Field(
        3072, ge=0, description="Clips of the pretrained generator, labelled by the oracle, for training the judge."
    )
    num_held_out_clips: int = Field(
        960, ge=48, description="Clips, rendered and generated each, on which oracle, auditor and judge are tested."
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


class FlowPretrainingParameters(PretrainingParameters):
    """How the tiny Wan of the environment ``flow`` is trained from scratch.

    Its width must exceed the 64 channels of its latents to separate them from noise: with two heads the final loss is
    twice as high.
    """

    num_attention_heads: int = with_default(PretrainingParameters, "num_attention_heads", 3)
    feed_forward_factor: int = Field(2, ge=1, description="Width of feed-forward layers, in widths of the transformer.")
    flow_shift: float = Field(
        3.0,
        gt=0,
        description="Shift of the times of training and sampling towards noise, as the scheduler applies it.",
    )


class AnnotatorParameters(Parameters):
    """How a simulated person compares two clips."""

    temperature: float = Field(
        0.6, gt=0, description="Spread of the simulated annotator: difference in utility at odds of e to 1."
    )
    tie_width: float = Field(0.25, ge=0, description="Perceived differences below this are ties.")


class CriterionParameters(AnnotatorParameters):
    """How a simulated person compares two clips in one criterion, which is easier to see than all together.

    Width and temperature make theta of the Bradley-Terry model with ties exp(1.6), about 5, the usual value.
    """

    temperature: float = with_default(AnnotatorParameters, "temperature", 0.15)
    tie_width: float = with_default(AnnotatorParameters, "tie_width", 0.24)


class ComparisonParameters(AnnotatorParameters):
    """How simulated people compare two clips, on the whole and by criterion."""

    criteria: CriterionParameters = Field(
        default_factory=CriterionParameters, description="The same for a comparison in one criterion."
    )


class TasteParameters(Parameters):
    """What people value beyond the sum over the checklist's questions; with zeros nothing, as the reward assumes.

    Each dimension has a share from 0 to 1: its part of the utility, divided by that of a clip without flaws.
    """

    interaction: float = Field(
        0.0, ge=0, description="Utility of a clip that is good in everything: multiplies the product of all shares."
    )
    veto: float = Field(0.0, ge=0, description="Utility that a clip loses for each dimension whose share is too low.")
    veto_below: float = Field(0.5, ge=0, le=1, description="Share of a dimension below which it is too low.")


class PreferenceParameters(ComparisonParameters):
    """How people's preferences are simulated."""

    taste: TasteParameters = Field(
        default_factory=TasteParameters, description="What the overall preference values beyond the sum over questions."
    )

    num_pairs: int = Field(480, ge=2, description="Pairs of clips that are compared.")
    clips_per_prompt: int = Field(5, ge=2, description="Generated clips per prompt, from which pairs are drawn.")


class RewardPairParameters(ComparisonParameters):
    """Training data of the embedded VideoReward: generated clips, and simulated comparisons of them."""

    clips_per_prompt: int = Field(60, ge=2, description="Generated clips per prompt, from which pairs are drawn.")
    num_pairs: int = Field(9600, ge=2, description="Pairs of compared clips, for training.")
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


class CaptionParameters(Parameters):
    """Rendered clips that a vision-language model describes; see the pipeline vlm_dpo."""

    clips_per_prompt: int = Field(10, ge=1, description="Rendered clips of each prompt.")
    flaw_scale: float = Field(1.0, ge=0, le=1.5, description="Multiplies the probability of every flaw.")


class UnifiedItemParameters(ComparisonParameters):
    """Training data of the embedded UnifiedReward: compared and graded generated clips, described rendered ones."""

    clips_per_prompt: int = Field(60, ge=2, description="Generated clips of each prompt, for pairs and grades.")
    num_pairs: int = Field(8000, ge=2, description="Pairs of compared generated clips, for training.")
    num_held_out_clips_per_prompt: int = Field(
        16, ge=2, description="Further generated clips of each prompt, for pairs and grades of held-out prompts."
    )
    num_held_out_pairs: int = Field(1500, ge=2, description="Pairs of held-out prompts.")
    cross_prompt_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of pairs in which a clip was made for a prompt that differs in one or two attributes.",
    )
    grade_noise: float = Field(
        0.19,
        ge=0,
        description="Standard deviation of the noise of the utility behind a grade; with the default the difference of "
        "two grades is as noisy as a comparison in one criterion.",
    )
    num_described_clips: int = Field(4800, ge=48, description="Rendered clips with descriptions, for training.")
    num_held_out_described_clips: int = Field(
        2400, ge=48, description="Further rendered clips; those of held-out prompts have descriptions."
    )
    broken_share: float = Field(
        0.1, ge=0, le=1, description="Share of descriptions in which a word is missing or repeated."
    )


class MicroWorldParameters(Parameters):
    """Everything about the embedded default that is not part of the method."""

    seed: int = Field(0, description="Seed of everything the micro-world makes.")
    scenes: SceneParameters = Field(
        default_factory=SceneParameters, description="How speed and flaws of rendered clips are drawn."
    )
    clips: ClipParameters = Field(default_factory=ClipParameters, description="Rendered and generated clips.")
    pretraining: PretrainingParameters = Field(
        default_factory=PretrainingParameters, description="Training of the generator."
    )
    flow_pretraining: FlowPretrainingParameters = Field(
        default_factory=FlowPretrainingParameters, description="Training of the generator of rectified flow."
    )
    preferences: PreferenceParameters = Field(
        default_factory=PreferenceParameters, description="Simulated preferences."
    )
    reward_pairs: RewardPairParameters = Field(
        default_factory=RewardPairParameters, description="Clips and comparisons for the VideoReward."
    )
    captions: CaptionParameters = Field(
        default_factory=CaptionParameters, description="Clips and questions for a vision-language model."
    )
    unified_items: UnifiedItemParameters = Field(
        default_factory=UnifiedItemParameters, description="Clips, comparisons, grades and texts for the UnifiedReward."
    )
