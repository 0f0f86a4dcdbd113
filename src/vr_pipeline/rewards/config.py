"""Parameters of rewards: loading of networks, and weight_regression."""

from typing import Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters


class NetworkRewardParameters(Parameters):
    """Loading of a reward that is a vision-language model, and its batches; a reward adds its folder."""

    device: str = Field("auto", description="Torch device; 'auto' uses CUDA if available.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of the model.")
    threads: int | None = Field(None, ge=1, description="CPU threads of torch; null for the default.")
    clip_batch: int = Field(
        1,
        ge=1,
        description="Clips per batch. With 1, the scores of a clip do not depend on other clips; with more, they do by "
        "rounding.",
    )
    clips_per_item: int = Field(32, ge=1, description="Clips scored and stored together.")
    reader_threads: int = Field(2, ge=1, description="Threads that decode clips.")
    num_frames: int | None = Field(None, ge=1, description="Largest number of frames; null for the model's own.")
    frames_per_second: float | None = Field(None, gt=0, description="Frames per second; null for the model's own.")
    min_pixels: int | None = Field(
        None, ge=1, description="Smallest area of a frame in pixels; null for the model's own."
    )
    max_pixels: int | None = Field(
        None, ge=1, description="Largest area of a frame in pixels; null for the model's own."
    )


class WeightRegressionParameters(Parameters):
    """How weights are learned from human preferences and tested."""

    answers: Literal["binary", "probability"] = Field(
        "binary", description="what the weights multiply, in fit and scoring: yes or no (P(yes) above 0.5), or P(yes)"
    )
    encoding: Literal["zero_one", "plus_minus"] = Field(
        "zero_one", description="values of yes and no: 1 and 0 (paper), or 1 and -1 (public code)"
    )
    nonnegative: bool = Field(
        True, description="remove the question with the most negative weight and refit, until no weight is negative"
    )
    questions: Literal["all", "half"] = Field(
        "all",
        description="questions of the reward: all, or half of every dimension. Then another reward is fitted on the "
        "other half, which can test checkpoints (dpo_training.validation.hold_out_questions)",
    )
    given: dict[str, float] | None = Field(
        None,
        description="weights by question that are used instead of fitted ones; questions not named weigh 0. null fits "
        "weights. The pairs still test them",
    )
    labels: Literal["majority", "soft"] = Field(
        "majority",
        description="with several annotators per pair: the majority label, or the shares of votes as soft labels",
    )
    penalty: float | None = Field(
        None, ge=0, description="strength of the L2 penalty per pair; null chooses it by cross-validation"
    )
    penalties: tuple[float, ...] = Field(
        (1e-5, 1e-4, 1e-3, 1e-2, 1e-1), description="candidate penalties of the cross-validation"
    )
    folds: int = Field(5, ge=2, description="folds of the cross-validation; no prompt is split")
    overlaps: Literal["show", "remove"] = Field(
        "remove",
        description="fitting pairs whose prompt is (nearly) a validation or test prompt of the policies: show counts "
        "them in the report, remove excludes them from the fit",
    )
    near_duplicate: float = Field(0.7, gt=0, le=1, description="Rouge-L F1 above which two prompts are near-duplicates")
    held_out_share: float = Field(0.25, gt=0, lt=1, description="share of prompts whose pairs only test the weights")
    bootstrap_samples: int = Field(500, ge=0, description="replicates of each bootstrap over prompts; 0: no intervals")
    bootstrap: Literal["score", "refit"] = Field(
        "score",
        description="intervals of the weights: one Newton step per omitted prompt (score), or refitted replicates "
        "(refit)",
    )
    seed: int = Field(0, ge=0, description="seed of split, folds and bootstrap")

    @model_validator(mode="after")
    def _given_weights_have_no_halves(self) -> "WeightRegressionParameters":
        if self.given is not None and self.questions == "half":
            raise ValueError("'given' weights are those of all questions: set 'questions' to all")
        return self
