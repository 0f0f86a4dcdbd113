"""Parameters of evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vr_pipeline.config import Parameters


class ReportParameters(Parameters):
    """Parameters of the report page."""

    title: str = Field("Evaluation of preference-trained policies", description="Heading of the page.")
    num_prompts: int = Field(8, ge=0, description="Held-out prompts with clips side by side.")
    clips_per_prompt: int = Field(1, ge=1, description="Seeds per shown prompt.")
    num_rejected_pairs: int = Field(
        4,
        ge=0,
        le=30,
        description="Examples of training pairs whose winner has more total reward but is worse in a dimension.",
    )
    note: str = Field("", description="Note at the top, for example that the data are simulated.")


class EvaluationParameters(Parameters):
    """Parameters of evaluation."""

    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["test"], description="Splits of the prompts for the comparison of policies."
    )
    videos_per_prompt: int = Field(16, ge=1, description="Clips per policy and prompt.")
    seed: int = Field(10, description="Base seed; all policies get the same seeds.")
    report: ReportParameters = Field(default_factory=ReportParameters, description="The report page.")
