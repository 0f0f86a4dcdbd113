"""Parameters of judges."""

from __future__ import annotations

from typing import Any

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
        description="'package.module:name' of a callable that takes the options and returns an object with "
        "score(clips, prompts, names), from 0 to 1, and identity.",
    )
    options: dict[str, Any] = Field(default={}, description="Keyword arguments of the scorer.")

    @model_validator(mode="after")
    def _one_source(self) -> AlignmentParameters:
        if sum(source is not None for source in (self.judge, self.table, self.scorer)) != 1:
            raise ValueError("give exactly one of 'judge', 'table' and 'scorer'")
        return self


NOT = "not "
"""Before a question whose no is the signal of a bias."""


class FaultParameters(Parameters):
    """Faults that the judge is given on purpose; see :mod:`vr_pipeline.judges.faults`."""

    bias: dict[str, str] = Field(
        default={},
        description="Question -> the wrong signal that also counts as yes to it: another question, or 'not' and a "
        "question. With {moves_fast: not brightness_steady} the judge takes flicker for fast motion.",
    )
    error_rate: float = Field(
        0.0, ge=0, le=1, description="Share of answers that are turned around: P(yes) becomes 1 - P(yes)."
    )
    seed: int = Field(0, description="Seed of the errors; an error depends on it, on the clip and on the question.")


class ChecklistInferenceParameters(Parameters):
    """The pipeline checklist_inference."""

    alignment: AlignmentParameters | None = Field(
        None, description="Another source of the alignment score; null leaves it to the judge's own probability."
    )
    faults: FaultParameters | None = Field(
        None, description="Faults that the judge is given on purpose, to study their effect; null: none."
    )
    clips_per_item: int = Field(
        32,
        ge=1,
        description="Clips judged and stored together; a killed run loses the answers on at most this number of clips.",
    )
    reader_threads: int = Field(2, ge=1, description="Threads that decode clips.")
    max_median_outside_mass: float = Field(
        0.5,
        gt=0,
        le=1,
        description="The run stops when the median probability on tokens other than yes and no is above this.",
    )
