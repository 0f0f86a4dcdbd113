"""The lines of a score: a label, a number of a scale, and an ending."""

from __future__ import annotations

from decimal import Decimal
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError

MOST_VALUES = 1001
"""Largest number of values of a scale, all of which are read."""

REST = "[[rest]]"
"""Placeholder for the second one's number after a share."""


class ScoreLine(Parameters):
    """One number of an answer; its score is the expectation over the scale."""

    dimension: str = Field(
        pattern=r"^[A-Za-z0-9_]+$", description="Name of the dimension, whose score is the column dim_<name>."
    )
    before: str = Field("", description="Text of the answer before the number.")
    after: str = Field(
        "\n",
        description="Text after the number; the last line ends with the template's 'end' instead. [[rest]] is the "
        "second one's number after a share.",
    )
    question: str = Field("", description="Text for [[dimension]]; empty for the dimension's name.")
    low: float = Field(allow_inf_nan=False, description="Lowest value.")
    high: float = Field(allow_inf_nan=False, description="Highest value.")
    step: float = Field(1.0, gt=0, allow_inf_nan=False, description="Difference of neighbouring values.")
    decimals: int = Field(0, ge=0, le=4, description="Digits after the decimal point.")
    open: bool = Field(
        False,
        description="Whether the model writes more digits than are read. A value then represents all numbers with the "
        "same first digits, and counts as their middle (at most 'high').",
    )

    @model_validator(mode="after")
    def _a_scale(self) -> ScoreLine:
        # Decimals, since a tenth has no exact binary form.
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
        count = (high - low) / step
        if high <= low or count != count.to_integral_value():
            raise ValueError("'high' must be above 'low' by a whole number of steps")
        if count >= MOST_VALUES:
            raise ValueError(f"a scale has at most {MOST_VALUES} values: take a larger step")
        if len(set(self.texts)) < len(self.texts):
            raise ValueError("two values have the same text: raise 'decimals'")
        if self.open and len({len(text) for text in self.texts}) > 1:
            raise ValueError("with 'open', all values must have the same number of digits")
        return self

    @cached_property
    def steps(self) -> tuple[Decimal, ...]:
        """Values of the scale, ascending."""
        low, high, step = (Decimal(str(number)) for number in (self.low, self.high, self.step))
        return tuple(low + step * at for at in range(int((high - low) / step) + 1))

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Values as text, ascending."""
        return tuple(f"{value:.{self.decimals}f}" for value in self.steps)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Numbers of the texts, [values]."""
        shift = Decimal(str(self.step)) / 2 if self.open else Decimal(0)
        return np.array([float(min(value + shift, self.steps[-1])) for value in self.steps])

    @property
    def ending(self) -> str:
        """Text after any number."""
        return self.after.partition(REST)[0]

    def filled(self, number: str) -> str:
        """Return the line with a number."""
        rest = Decimal(str(self.low)) + Decimal(str(self.high)) - Decimal(number)
        return self.before + number + self.after.replace(REST, f"{rest:.{self.decimals}f}")

    def nearest(self, number: float) -> int:
        """Return the index of the nearest value (the lower of two), or with ``open`` of the number's first digits.

        Raises:
            InputError: the number is NaN or outside the scale.
        """
        if not self.low <= number <= self.high:
            raise InputError(
                f"{number} is outside the scale of '{self.dimension}', {self.low:g} to {self.high:g}",
                remedy="Convert the ratings to the template's scale, or change the scale",
                field=self.dimension,
            )
        given = Decimal(str(number))
        if self.open:
            return int((given - self.steps[0]) / Decimal(str(self.step)))
        return min(range(len(self.steps)), key=lambda at: abs(self.steps[at] - given))
