"""Copies of healthy weights, to which a failed training returns."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from vr_pipeline.engine.state import BestWeights, TrainingState


class Diagnosis(NamedTuple):
    """The health of a training.

    Attributes:
        healthy: far from the limits.
        trouble: what is wrong, as a clause with numbers; None unless the training fails.
        remedy: which settings to change, as an imperative sentence without full stop.
    """

    healthy: bool = True
    trouble: str | None = None
    remedy: str = ""


class Watch:
    """Keeps copies of the weights of steps whose following steps were healthy.

    The statistics of a step are those of the weights before it. A copy is therefore healthy only if the steps after it
    were.

    Args:
        state: the training; receives the copies, so that checkpoints include them.
        every: steps between copies and between diagnoses.
        averaged: uses the averaged weights, if any, within a block.
    """

    def __init__(self, state: TrainingState, every: int, averaged: Callable[[], AbstractContextManager[None]]) -> None:
        self.state, self.every, self.averaged = state, every, averaged
        self.original = BestWeights.copied(0, state.weights)
        state.healthy = state.pending = self.original

    def due(self) -> bool:
        """Return whether a diagnosis is due after this step."""
        return self.state.step % self.every == 0

    def advance(self, healthy: bool) -> None:
        """Mark the last copy as healthy if the steps after it were, and make the next."""
        state = self.state
        if healthy:
            state.healthy, state.healthy_until = state.pending, state.step
        with self.averaged():
            state.pending = BestWeights.copied(state.step, state.weights)
