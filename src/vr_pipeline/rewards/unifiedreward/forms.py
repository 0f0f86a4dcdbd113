"""Forms of questions to a checkpoint: comparisons by whole answers or by shares, and scores by lines."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.rewards.unifiedreward.rendering import slots_of
from vr_pipeline.rewards.unifiedreward.scales import ScoreLine

TOTAL: Final = "total"
"""Name of the line with the overall score of the answer."""
DIMENSION: Final = "dimension"
"""Placeholder for the dimension, in texts that ask for one line at a time."""


class Reasons(Parameters):
    """Reasons that the model writes before its answer; they are kept as text."""

    until: str = Field(min_length=1, description="Text that ends the reasons; the answer follows it.")
    max_tokens: int = Field(1024, ge=1, description="Largest number of tokens of the reasons; longer reasons fail.")


class PairAnswers(Parameters):
    """The whole answers of a comparison."""

    first: str = Field(min_length=1, description="Answer if the first is better.")
    second: str = Field(min_length=1, description="Answer if the second is better.")
    tie: str | None = Field(None, min_length=1, description="Answer if both are equal; null for no such answer.")

    @property
    def texts(self) -> tuple[str, ...]:
        """Answers in the order first, second, tie."""
        return tuple(text for text in (self.first, self.second, self.tie) if text is not None)

    @model_validator(mode="after")
    def _different(self) -> PairAnswers:
        if len(set(self.texts)) < len(self.texts):
            raise ValueError("two answers are the same")
        return self


class PairTemplate(Parameters):
    """The question which of two is better."""

    text: str = Field(description="Text with [[first]], [[second]] and [[prompt]]; or [[clip]] and two responses.")
    answers: PairAnswers = Field(description="The answers.")
    reasons: Reasons | None = Field(None, description="Reasons before the answer; null for none.")


class PointTemplate(Parameters):
    """The question how good one is.

    If the text has [[dimension]], each line is a separate answer; otherwise all lines are one answer.
    """

    text: str = Field(description="Text with [[clip]] and [[prompt]], and [[response]] for responses.")
    lines: tuple[ScoreLine, ...] = Field(min_length=1, description="Numbers of the answer, in order.")
    total: Literal["mean", "scaled_mean", "line"] = Field(
        "mean",
        description="Overall score: the mean of the lines, their mean after scaling each to 0 to 1, or the line named "
        "'total', which the means ignore.",
    )
    reasons: Reasons | None = Field(None, description="Reasons before the first line; null for none.")

    @model_validator(mode="after")
    def _consistent(self) -> PointTemplate:
        names = [line.dimension for line in self.lines]
        if len(names) != len(set(names)):
            raise ValueError("two lines have the same dimension")
        if self.total == "line" and TOTAL not in names:
            raise ValueError(f"with 'total: line' a line must be named '{TOTAL}'")
        if not self.dimensions and self.total != "line":
            raise ValueError(f"the only line is '{TOTAL}': set 'total' to 'line'")
        if self.reasons is not None and self.separate:
            raise ValueError("reasons need all lines in one answer: remove [[dimension]] from the text")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the dimensions: all lines except the overall score."""
        return tuple(line.dimension for line in self.lines if line.dimension != TOTAL)

    @property
    def separate(self) -> bool:
        """Whether each line is a separate answer."""
        return DIMENSION in slots_of(self.text)

    @property
    def read_lines(self) -> tuple[int, ...]:
        """Indices of the lines that are read: the overall score only if it is the total."""
        return tuple(at for at, line in enumerate(self.lines) if line.dimension != TOTAL or self.total == "line")


class SharesTemplate(Parameters):
    """The question which of two is better, answered by the first one's share in each dimension.

    The end of a line may contain [[rest]], the second one's number. The probability of the first is the mean of its
    expected shares; there are no ties.
    """

    text: str = Field(description="Text with [[first]], [[second]] and [[prompt]].")
    lines: tuple[ScoreLine, ...] = Field(min_length=1, description="Numbers of the first, in order.")


class TaskTemplate(Parameters):
    """The questions of a task."""

    pair: PairTemplate | None = Field(None, description="Comparison of two; null for none.")
    point: PointTemplate | None = Field(None, description="Score of one; null for none.")
    shares: SharesTemplate | None = Field(
        None, description="Comparison of two by relative scores, for checkpoints without whole answers."
    )
