"""Parameters of evaluation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vr_pipeline.config import Parameters


class ReportParameters(Parameters):
    """What the report page shows."""

    title: str = Field("Evaluation of preference-trained policies", description="Heading of the page.")
    num_prompts: int = Field(8, ge=0, description="Held-out prompts whose clips are shown side by side.")
    clips_per_prompt: int = Field(1, ge=1, description="Seeds shown of each of these prompts.")
    num_rejected_pairs: int = Field(
        4, ge=0, le=30, description="Training pairs shown that go by total reward but fail in a dimension."
    )
    note: str = Field("", description="A sentence shown at the top, for example that the data are simulated.")


class EvaluationParameters(Parameters):
    """The pipeline evaluation."""

    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["test"], description="Splits of the prompts on which policies are compared."
    )
    videos_per_prompt: int = Field(16, ge=1, description="Clips of each policy for each prompt.")
    seed: int = Field(10, description="Base seed; all policies get the same seeds.")
    report: ReportParameters = Field(default_factory=ReportParameters, description="The report page.")
