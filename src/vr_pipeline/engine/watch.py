"""What a training falls back to when it goes wrong: weights from before the trouble began."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vr_pipeline.engine.state import BestWeights, TrainingState

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


class Diagnosis(NamedTuple):
    """What a log says of a training.

    Attributes:
        healthy: far from trouble.
        trouble: what is wrong, as a clause with its numbers; None while there is no reason to stop.
        remedy: which settings to change, as an imperative sentence without its full stop.
    """

    healthy: bool = True
    trouble: str | None = None
    remedy: str = ""


class Watch:
    """Keeps copies of the weights of steps whose following steps were healthy.

    The statistics of a step are those of the weights before it. A copy is therefore taken for healthy only when the
    steps after it were.

    Args:
        state: the training; takes the copies, so that a checkpoint holds them.
        every: steps between copies, and steps that a diagnosis looks at.
        averaged: has the averaged weights in place for the length of a block, if there are any.
    """

    def __init__(self, state: TrainingState, every: int, averaged: Callable[[], AbstractContextManager[None]]) -> None:
        self.state, self.every, self.averaged = state, every, averaged
        self.original = BestWeights.copied(0, state.weights)
        state.healthy = state.pending = self.original

    def due(self) -> bool:
        """Whether the log is to be looked at after this step."""
        return self.state.step % self.every == 0

    def advance(self, healthy: bool) -> None:
        """Take the last copy for healthy, if the steps after it were, and make the next."""
        state = self.state
        if healthy:
            state.healthy, state.healthy_until = state.pending, state.step
        with self.averaged():
            state.pending = BestWeights.copied(state.step, state.weights)
