"""Parameters of weight_regression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vr_pipeline.config import Parameters


class WeightRegressionParameters(Parameters):
    """How weights are learned from human preferences and how they are tested."""

    answers: Literal["binary", "probability"] = Field(
        "binary", description="what is weighed, in the fit and in scoring alike: the answer cut at 0.5, or P(yes)"
    )
    encoding: Literal["zero_one", "plus_minus"] = Field(
        "zero_one", description="numbers for yes and no: 1 and 0 (paper), or 1 and -1 (public code)"
    )
    nonnegative: bool = Field(True, description="remove the question of most negative weight and refit, until none")
    labels: Literal["majority", "soft"] = Field(
        "majority", description="several annotators a pair: the label of most votes, or their shares as soft labels"
    )
    penalty: float | None = Field(
        None, ge=0, description="strength of the L2 penalty per pair; null chooses it by cross-validation"
    )
    penalties: tuple[float, ...] = Field(
        (1e-5, 1e-4, 1e-3, 1e-2, 1e-1), description="penalties per pair among which cross-validation chooses"
    )
    folds: int = Field(5, ge=2, description="folds of the cross-validation, number; prompts are never split")
    held_out_share: float = Field(
        0.25, gt=0, lt=1, description="share of the prompts whose pairs test the weights and never enter the fit"
    )
    bootstrap_samples: int = Field(
        500, ge=0, description="replicates of every bootstrap, number; prompts are drawn; 0: no intervals"
    )
    bootstrap: Literal["score", "refit"] = Field(
        "score",
        description="intervals of the weights: from a Newton step without each prompt (score), or from replicates "
        "fitted anew (refit)",
    )
    seed: int = Field(0, ge=0, description="seed of split, folds and bootstrap")
