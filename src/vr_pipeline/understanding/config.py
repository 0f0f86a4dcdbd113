"""Parameters of the pipeline vlm_dpo."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import (
    CheckpointParameters,
    FineTuningParameters,
    LoRAParameters,
    ScheduleName,
    with_default,
)
from vr_pipeline.pairs.config import PairRankingParameters
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.rewards.training.held_out import SplitParameters
from vr_pipeline.understanding.dialogue import DialogueParameters
from vr_pipeline.vlm.config import JudgeParameters


class ResponseParameters(Parameters):
    """How long responses may be, and how many are generated at a time."""

    max_new_tokens: int = Field(256, ge=1, description="Largest number of tokens of a response; longer ones are cut.")
    batch_size: int = Field(4, ge=1, description="Questions answered at a time; bounds memory.")


class CandidateParameters(ResponseParameters):
    """How candidate responses are sampled."""

    num_candidates: int = Field(10, ge=2, description="Responses sampled for each question, equal ones included.")
    temperature: float = Field(
        1.0, gt=0, description="Temperature of sampling: higher values give more varied responses."
    )
    top_p: float = Field(
        1.0, gt=0, le=1, description="Draw only from the likeliest tokens with this total probability."
    )
    seed: int = Field(0, description="Seed of the responses, used with the question and the candidate's number.")


class JudgingParameters(Parameters):
    """Comparison of candidates and selection of a pair."""

    ranking: PairRankingParameters = Field(
        default_factory=PairRankingParameters, description="Which two candidates of a question are compared."
    )
    min_margin: float = Field(0.0, ge=0, description="Smallest difference of points between chosen and rejected.")


class TestParameters(Parameters):
    """Test of the model before and after training."""

    samples: int = Field(
        4,
        ge=0,
        description="Responses drawn for each held-out question in addition to the likeliest one, at the temperature "
        "of the candidates; the same seeds before and after.",
    )
    seed: int = Field(1, description="Seed of these responses.")


class ResponseTrainingParameters(FineTuningParameters, CheckpointParameters):
    """DPO on pairs of responses; a sample is a pair."""

    block: ClassVar[str] = "vlm_dpo.training"
    samples: ClassVar[str] = "pairs"

    beta: float = Field(0.1, gt=0, description="Weight of the log-ratios of policy and reference in the loss.")
    lora: LoRAParameters | None = Field(
        default_factory=LoRAParameters,
        description="Low-rank adapter of the language model; null trains all of its weights. The vision tower is not "
        "trained.",
    )
    steps: int = with_default(FineTuningParameters, "steps", 500)
    batch_size: int = with_default(FineTuningParameters, "batch_size", 16)
    # The published rate for full training; adapters usually need 10 to 100 times more.
    learning_rate: float = with_default(FineTuningParameters, "learning_rate", 5e-7)
    schedule: ScheduleName = with_default(FineTuningParameters, "schedule", "cosine")
    warmup_steps: int = with_default(FineTuningParameters, "warmup_steps", 20)
    memory_mb: float = Field(
        4000.0, ge=0, description="Memory for clips, in megabytes; other clips are read at each use."
    )
    reader_threads: int = Field(2, ge=1, description="Threads that read clips.")

    @model_validator(mode="after")
    def _whole_passes(self) -> ResponseTrainingParameters:
        self.check_whole_passes()
        return self


class VlmDpoParameters(Parameters):
    """The pipeline vlm_dpo."""

    model: JudgeParameters = Field(description="The vision-language model to train, and the frames that it gets.")
    dialogue: DialogueParameters = Field(default_factory=DialogueParameters, description="Text around a question.")
    split: SplitParameters = Field(
        default_factory=SplitParameters,
        description="Groups of questions (the column 'group', not prompts) held out of training.",
    )
    candidates: CandidateParameters = Field(default_factory=CandidateParameters, description="Candidate responses.")
    reward_model: RewardModelParameters = Field(
        description="Reward that compares and scores responses; its type is 'unifiedreward'."
    )
    judging: JudgingParameters = Field(default_factory=JudgingParameters, description="From judgements to pairs.")
    training: ResponseTrainingParameters = Field(
        default_factory=ResponseTrainingParameters, description="Training on the pairs."
    )
    test: TestParameters = Field(default_factory=TestParameters, description="The test on held-out questions.")

    @model_validator(mode="after")
    def _trainable(self) -> VlmDpoParameters:
        if self.model.quantisation != "none":
            raise ValueError("a quantised model cannot be trained: set quantisation of 'model' to none")
        if self.model.adapter is not None:
            raise ValueError(
                "'model' has an adapter: merge it first, because the trained weights would fit the merged model only"
            )
        return self
