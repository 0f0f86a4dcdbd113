"""Order of items in training and within pairs, by hashes of identifiers, so that a resumed training is the same.

An item of weight w is shown w times per epoch on average: with 0.5 every second epoch, with 2.5 alternately twice and
three times. The order within a pair alternates, and starts by a hash, so that both positions are right equally often.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash, sample_seed


class Shown(NamedTuple):
    """An item of a step: its row in the table, and whether the second of a pair is shown first."""

    row: int
    turned: bool


class Drawing:
    """The order in which items are shown.

    Args:
        rows: training rows of the table of items.
        names: their identifiers.
        weights: mean times that each is shown per epoch.
        seed: of the order.
    """

    def __init__(self, rows: Sequence[int], names: Sequence[str], weights: Sequence[float], *, seed: int) -> None:
        if not sum(weights) > 0:
            raise InputError(
                "no training item has a weight above 0",
                remedy="Raise weights of items, or of their source in source_weights",
                field="unified_reward_training.source_weights",
            )
        self.items = [item for item in zip(rows, names, weights, strict=True) if item[2] > 0]
        self.seed = seed
        self.per_epoch = float(sum(weights))
        # Position within an epoch at which an item with fractional weight is due.
        self._due = [int(content_hash("due", seed, name), 16) / 2.0**64 for _, name, _ in self.items]
        self._turned = [int(content_hash("turned", seed, name), 16) % 2 == 1 for _, name, _ in self.items]
        self._starts = [0]
        self._epoch, self._order = -1, list[Shown]()

    def of_step(self, step: int, size: int) -> list[Shown]:
        """Return the ``size`` items of a step, counted from 1."""
        return [self._at(position) for position in range((step - 1) * size, step * size)]

    def _at(self, position: int) -> Shown:
        while self._starts[-1] <= position:
            self._starts.append(self._starts[-1] + sum(len(self._times(at, len(self._starts) - 1)) for at in self._all))
        epoch = next(at for at in range(len(self._starts) - 1, -1, -1) if self._starts[at] <= position)
        if epoch != self._epoch:
            shown = [
                (sample_seed(self.seed, f"{name} {time}", epoch), Shown(row, self._turned[at] != (time % 2 == 1)))
                for at, (row, name, _) in enumerate(self.items)
                for time in self._times(at, epoch)
            ]
            self._epoch, self._order = epoch, [one for _, one in sorted(shown)]
        return self._order[position - self._starts[epoch]]

    @property
    def _all(self) -> range:
        return range(len(self.items))

    def _times(self, at: int, epoch: int) -> range:
        """Return the repetitions of an item in an epoch, counted over all epochs."""
        weight = self.items[at][2]
        return range(math.floor(weight * epoch + self._due[at]), math.floor(weight * (epoch + 1) + self._due[at]))
