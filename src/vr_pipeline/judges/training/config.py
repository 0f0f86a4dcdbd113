"""Parameters of the training of judges."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import (
    CheckpointParameters,
    FineTuningParameters,
    LoRAParameters,
    ScheduleName,
    with_default,
)
from vr_pipeline.vlm.config import JudgeParameters


class TinyJudgeParameters(Parameters):
    """Size and view of a judge that is trained from random weights."""

    hidden_size: int = Field(64, ge=8, description="Width of the language model.")
    layers: int = Field(3, ge=1, description="Layers of the language model.")
    heads: int = Field(4, ge=1, description="Attention heads of language model and vision tower.")
    intermediate_size: int = Field(128, ge=8, description="Width of the language model's feed-forward part.")
    vision_size: int = Field(64, ge=8, description="Width of the vision tower.")
    vision_depth: int = Field(1, ge=1, description="Layers of the vision tower.")
    patch_size: int = Field(4, ge=1, description="Edge of a patch in pixels.")
    temporal_patch_size: int = Field(4, ge=1, description="Frames in a patch.")
    merge_size: int = Field(2, ge=1, description="Patches per side of the square that becomes one visual token.")
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary positions.")
    initial_std: float = Field(0.08, gt=0, description="Standard deviation of the random initial weights.")
    num_frames: int = Field(8, ge=1, description="Frames taken from a clip.")
    height: int = Field(16, ge=1, description="Height to which frames are area-averaged, in pixels.")
    width: int = Field(16, ge=1, description="Width to which frames are area-averaged, in pixels.")
    world: str | None = Field(
        None,
        description="What the judge is trained on; shown to users, because its answers on anything else mean nothing.",
    )


class JudgeTrainingParameters(FineTuningParameters, CheckpointParameters):
    """The pipeline judge_training. A sample is a clip with its questions.

    Published batch sizes count answers: with drawn questions a step has exactly ``batch_size`` times
    ``questions_per_clip`` answers.
    """

    block: ClassVar[str] = "judge_training"
    samples: ClassVar[str] = "clips"

    start: JudgeParameters | None = Field(None, description="The model that training starts from.")
    tiny: TinyJudgeParameters | None = Field(
        None, description="A small Qwen2-VL that training starts from with random weights, instead of 'start'."
    )
    lora: LoRAParameters | None = Field(None, description="Train a low-rank adapter; null trains every weight.")
    steps: int = with_default(FineTuningParameters, "steps", 1500)
    learning_rate: float = with_default(FineTuningParameters, "learning_rate", 4e-6)
    schedule: ScheduleName = with_default(FineTuningParameters, "schedule", "cosine")
    warmup_steps: int = with_default(FineTuningParameters, "warmup_steps", 50)
    beta2: float = with_default(FineTuningParameters, "beta2", 0.99)
    checkpoint_every: int = with_default(FineTuningParameters, "checkpoint_every", 500)
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="Clips in one forward and backward pass: a divisor of batch_size. Processes share the passes of a "
        "step, so their number must divide the number of passes. Null: all clips of the step. A pass has more clips "
        "where some have fewer annotated questions than are drawn.",
    )
    questions_per_clip: int | None = Field(
        None,
        ge=1,
        description="Questions drawn per clip and pass, rare answers more often, so that each question gets yes and "
        "no about equally often: closely with a few of many questions, less so with a large part of them. A step then "
        "has exactly batch_size times as many answers: further clips make up for those with fewer annotated "
        "questions. Null asks all questions of a clip.",
    )
    exact_balance: bool = Field(
        True,
        description="Weight the losses of drawn questions by the counts of the whole training, so that yes and no "
        "have exactly the same weight in each question; false leaves the balance to the drawing. Without drawing it "
        "is always exact.",
    )
    matrix_learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate of Muon, which then trains the matrices of the layers (orthogonalised "
        "momentum, faster from random weights); null trains them with AdamW too.",
    )
    caption_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the auxiliary loss on captions, where annotations have them; answers have weight 1.",
    )
    caption_question: str = Field("Describe the video.", description="Question that asks for a caption.")
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="Share of the clips held out, by a hash of the prompt-independent clip identifier."
    )
    num_frames: int | None = Field(None, ge=1, description="Frames read of an annotated clip, at most; null reads all.")
    frames_per_second: float | None = Field(None, gt=0, description="Rate at which frames are read, in 1/s.")
    memory_mb: float = Field(
        8000.0,
        ge=0,
        description="Frames kept in memory by a process, in megabytes; further clips are read each time they are used.",
    )
    validation_clips: int = Field(
        512, ge=1, description="Largest number of held-out clips in validations during training."
    )

    @property
    def answers_per_pass(self) -> int | None:
        """Answers per forward and backward pass; None where all questions of a clip are asked."""
        return None if self.questions_per_clip is None else self.samples_per_pass * self.questions_per_clip

    @property
    def answers_per_step(self) -> int | None:
        """Answers whose losses make one step of the optimiser, over all processes together; None likewise."""
        return None if self.answers_per_pass is None else self.answers_per_pass * self.passes

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.start is None) == (self.tiny is None):
            raise ValueError("give either 'start' (a model) or 'tiny' (sizes of a new one)")
        if self.start is not None and self.start.quantisation != "none":
            raise ValueError("a quantised model cannot be trained here: set quantisation of 'start' to none")
        self.check_whole_passes()
        return self
