"""The grid of a probe: combinations of learning rate and beta, with as many steps as the time limit allows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

FEWEST_STEPS = 12
"""Minimum number of steps; with less time the grid becomes smaller."""

_FACTOR = math.sqrt(10.0)


@dataclass(frozen=True)
class Grid:
    """The combinations to try.

    Attributes:
        learning_rates: ascending.
        betas: ascending.
        steps: optimiser steps of each combination.
    """

    learning_rates: tuple[float, ...]
    betas: tuple[float, ...]
    steps: int

    @property
    def cells(self) -> list[tuple[float, float]]:
        """Learning rate and beta of every combination."""
        return [(rate, beta) for rate in self.learning_rates for beta in self.betas]


@dataclass(frozen=True)
class Costs:
    """Measured durations.

    Attributes:
        step: seconds per optimiser step.
        judgement: seconds to judge a policy, by the reward on new clips and on held-out pairs.
    """

    step: float
    judgement: float

    def seconds(self, grid: Grid) -> float:
        """Estimate the duration of a grid in seconds."""
        return len(grid.cells) * (grid.steps * self.step + self.judgement)


def around(value: float, count: int = 5) -> tuple[float, ...]:
    """Return values around a setting, a half power of ten apart, two digits each: 0.001 -> 0.0001, 0.00032, ..., 0.01.

    Args:
        value: the setting, above 0; included exactly if ``count`` is odd.
        count: number of values.
    """
    first = -(count // 2)
    return tuple(
        value if power == 0 else float(f"{value * _FACTOR**power:.1e}") for power in range(first, first + count)
    )


def fitted(grid: Grid, costs: Costs, seconds: float) -> Grid:
    """Return the grid with fewer steps, and if necessary fewer values, so that it fits the time limit in seconds.

    Steps are reduced to :data:`FEWEST_STEPS`; then the longer axis repeatedly loses its outermost value, the highest
    first. At least one combination remains.
    """
    spare = seconds / len(grid.cells) - costs.judgement
    most = int(spare / costs.step) if costs.step > 0 else grid.steps
    if most >= min(FEWEST_STEPS, grid.steps):
        return replace(grid, steps=min(grid.steps, most))
    grid = replace(grid, steps=min(grid.steps, FEWEST_STEPS))
    turn = 0
    while costs.seconds(grid) > seconds and len(grid.cells) > 1:
        if len(grid.learning_rates) >= len(grid.betas):
            grid = replace(grid, learning_rates=_without_an_end(grid.learning_rates, turn))
        else:
            grid = replace(grid, betas=_without_an_end(grid.betas, turn))
        turn += 1
    return grid


def _without_an_end(values: Sequence[float], turn: int) -> tuple[float, ...]:
    """Drop the last value, or the first one after both axes have lost their last, so that the middle remains."""
    return tuple(values[:-1] if (turn // 2) % 2 == 0 else values[1:])
