"""The order of a training's samples."""

from collections.abc import Sequence
from typing import Generic, TypeVar

from vr_pipeline.identifiers import sample_seed

Sample = TypeVar("Sample")


class EpochOrder(Generic[Sample]):
    """The sample at every position of a training over several epochs, and its epoch.

    Every epoch has all samples, ordered by a hash of their names, so the order of the input does not matter.

    Args:
        samples: all samples.
        names: their identifiers, in the same order.
        seed: of the order.
    """

    def __init__(self, samples: Sequence[Sample], names: Sequence[str], seed: int) -> None:
        self.samples, self.names, self.seed = samples, names, seed
        self.epoch = -1
        self.order: list[int] = []

    def __getitem__(self, position: int) -> tuple[Sample, int]:
        epoch, place = divmod(position, len(self.samples))
        if epoch != self.epoch:
            seeds = [sample_seed(self.seed, name, epoch) for name in self.names]
            self.epoch, self.order = epoch, sorted(range(len(seeds)), key=seeds.__getitem__)
        return self.samples[self.order[place]], epoch

    def of_step(self, step: int, size: int) -> list[tuple[Sample, int]]:
        """Return the samples of a step, counted from 1, with ``size`` samples per step."""
        return [self[position] for position in range((step - 1) * size, step * size)]
