"""Parameters of judges."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.vlm.config import JudgeParameters


class AlignmentParameters(Parameters):
    """Where the alignment score comes from, if not from the judge itself: exactly one of judge, table and scorer."""

    question: str = Field(
        "text_alignment", description="Id of the checklist question (feature: probability) whose value is replaced."
    )
    judge: JudgeParameters | None = Field(None, description="Another model that is asked the question instead.")
    table: str | None = Field(
        None, description="CSV or Parquet file with the columns video_id (or the file's name) and score, from 0 to 1."
    )
    scorer: str | None = Field(
        None,
        description=(
            "'package.module:name' of a callable that, called with the options, gives an object with "
            "score(clips, prompts, names) from 0 to 1 and identity."
        ),
    )
    options: dict[str, Any] = Field(default={}, description="Keyword arguments of the scorer.")

    @model_validator(mode="after")
    def _one_source(self) -> AlignmentParameters:
        if sum(source is not None for source in (self.judge, self.table, self.scorer)) != 1:
            raise ValueError("give exactly one of 'judge', 'table' and 'scorer'")
        return self


class ChecklistInferenceParameters(Parameters):
    """The pipeline checklist_inference."""

    alignment: AlignmentParameters | None = Field(
        None, description="Another source of the alignment score; null leaves it to the judge's own probability."
    )
    clips_per_item: int = Field(
        32, ge=1, description="Clips judged and stored together; a killed run loses at most so many answers."
    )
    reader_threads: int = Field(2, ge=1, description="Threads that decode clips.")
    max_median_outside_mass: float = Field(
        0.5,
        gt=0,
        le=1,
        description="The run stops when the median probability on tokens other than yes and no is above this.",
    )


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
    merge_size: int = Field(2, ge=1, description="Neighbouring patches a side that become one visual token.")
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary positions.")
    initial_std: float = Field(0.08, gt=0, description="Standard deviation of the random initial weights.")
    num_frames: int = Field(8, ge=1, description="Frames taken from a clip.")
    height: int = Field(16, ge=1, description="Height to which frames are area-averaged, in pixels.")
    width: int = Field(16, ge=1, description="Width to which frames are area-averaged, in pixels.")
    world: str | None = Field(None, description="What the judge will know; told to users who show it something else.")


class LoRAParameters(Parameters):
    """Low-rank adaptation; without it every weight is trained."""

    rank: int = Field(16, ge=1, description="Rank of the update.")
    alpha: float = Field(32.0, gt=0, description="Scale of the update is alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of inputs of the update set to 0 while training.")
    target_modules: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="Linear layers that are adapted, by the end of their name.",
    )


class JudgeTrainingParameters(Parameters):
    """The pipeline judge_training."""

    start: JudgeParameters | None = Field(None, description="The model that training starts from.")
    tiny: TinyJudgeParameters | None = Field(
        None, description="A small Qwen2-VL that training starts from with random weights, instead of 'start'."
    )
    lora: LoRAParameters | None = Field(None, description="Train a low-rank update; null trains every weight.")
    seed: int = Field(0, description="Seed of weights, order and sampling.")
    threads: int | None = Field(None, ge=1, description="CPU threads; they are part of what the result depends on.")
    steps: int = Field(1500, ge=1, description="Optimiser steps.")
    clips_per_batch: int = Field(32, ge=1, description="Clips in one forward and backward pass.")
    accumulation: int = Field(
        1,
        ge=1,
        description="Passes whose gradients make one optimiser step, over all processes together: a multiple of their "
        "number. A step sees clips_per_batch times accumulation clips.",
    )
    questions_per_clip: int | None = Field(
        None,
        ge=1,
        description=(
            "Questions drawn for a clip at each pass, rarer answers likelier, so that each question gets yes and no "
            "about equally often: nearly so with a few of many questions, less so with a large part of them. Null "
            "asks all."
        ),
    )
    exact_balance: bool = Field(
        True,
        description=(
            "Weigh the losses of drawn questions by what the whole training draws, so that yes and no weigh exactly "
            "the same in each question; false leaves their balance to the drawing. Without drawing it is exact always."
        ),
    )
    learning_rate: float = Field(4e-6, gt=0, description="Peak learning rate of AdamW.")
    matrix_learning_rate: float | None = Field(
        None,
        gt=0,
        description=(
            "Peak learning rate of Muon, which then trains the matrices of the layers (orthogonalised momentum, faster "
            "from random weights); null trains them by AdamW too."
        ),
    )
    warmup_steps: int = Field(50, ge=0, description="Steps over which the learning rate rises linearly from 0.")
    schedule: Literal["linear", "cosine", "constant"] = Field("cosine", description="Course after the warm-up, to 0.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    beta2: float = Field(0.99, gt=0, lt=1, description="AdamW's decay of squared gradients.")
    max_gradient_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    average_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the weights, which is then what is kept; null: none.",
    )
    caption_weight: float = Field(
        0.0, ge=0, description="Weight of the auxiliary loss on captions, where annotations have them; answers have 1."
    )
    caption_question: str = Field(
        "Describe the video.", description="What stands in the question's place before a caption is learned."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="Share of the clips held out, by a hash of the prompt-independent clip identifier."
    )
    validate_every: int = Field(500, ge=1, description="Steps between validations; the best checkpoint is kept.")
    checkpoint_folder: str | None = Field(
        None,
        description="Folder for the state of a training, from which it resumes; one that was finished is not done "
        "again. Null: none.",
    )
    kept_trainings: int = Field(
        4, ge=0, description="States that are kept in the folder when a run has finished, those used last."
    )
    retrain: bool = Field(
        False, description="Train again although the result of the same training is kept; kedro run --retrain."
    )
    num_frames: int | None = Field(
        None, ge=1, description="At most so many frames of an annotated clip are read; null reads all."
    )
    frames_per_second: float | None = Field(None, gt=0, description="Rate at which frames are read, in 1/s.")
    memory_mb: float = Field(
        8000.0,
        ge=0,
        description="Frames kept in memory by a process, in megabytes; further clips are read each time they are used.",
    )
    validation_clips: int = Field(512, ge=1, description="At most so many held-out clips in validations on the way.")

    @model_validator(mode="after")
    def _one_start(self) -> JudgeTrainingParameters:
        if (self.start is None) == (self.tiny is None):
            raise ValueError("give either 'start' (a model) or 'tiny' (sizes of a new one)")
        if self.start is not None and self.start.quantisation != "none":
            raise ValueError("a quantised model cannot be trained here: set quantisation of 'start' to none")
        return self
