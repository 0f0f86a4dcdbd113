"""Answers of a model to held-out items: pairs in both orders, points as expectations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.rewards.training.clips import TrainingClips
from vr_pipeline.rewards.unifiedreward.training.asking import ItemRequests, ReadyClip, all_visuals
from vr_pipeline.rewards.unifiedreward.training.items import PAIR_ANSWERS
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.likelihood import SharedReader

WIDTH = 9
"""Numbers per item."""

_SAID = np.array(["a", "b", "tie"])


@dataclass(frozen=True, eq=False)
class Read:
    """Answers to items.

    Attributes:
        probabilities: of pairs, that A is better, B is better, and of a tie; with A first, then with B first; NaN for
            points, [items, 2 orders, 3].
        score: of points, the expectation over the scale; NaN for pairs, [items].
        right: log-likelihood of the right answer, for pairs the mean of both orders, [items].
        mass: total probability of all answers, for pairs the mean of both orders, [items].
    """

    probabilities: NDArray[np.float64]
    score: NDArray[np.float64]
    right: NDArray[np.float64]
    mass: NDArray[np.float64]

    @classmethod
    def of(cls, rows: NDArray[np.float64]) -> Read:
        """Return the answers in rows of :func:`read_items`, [items, :data:`WIDTH`]."""
        return cls(rows[:, :6].reshape(-1, 2, 3), rows[:, 6], rows[:, 7], rows[:, 8])

    def part(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Read:
        """Return the answers to some items."""
        return Read(self.probabilities[rows], self.score[rows], self.right[rows], self.mass[rows])

    @property
    def lead(self) -> NDArray[np.float64]:
        """P(A is better) - P(B is better), mean of both orders, [items]."""
        mean = self.probabilities.mean(axis=1)
        return np.asarray(mean[:, 0] - mean[:, 1])

    def answers(self, order: int | None = None) -> NDArray[np.str_]:
        """Return the most likely of 'a', 'b' and 'tie' in one order (0 with A first, 1 with B first), or averaged."""
        found = self.probabilities.mean(axis=1) if order is None else self.probabilities[:, order]
        return np.asarray(_SAID[found.argmax(axis=1)])

    @property
    def position_bias(self) -> NDArray[np.float64]:
        """Half the difference of P(A is better) between the orders, above 0 if the first is favoured, [items]."""
        return np.asarray((self.probabilities[:, 0, 0] - self.probabilities[:, 1, 0]) / 2)


def read_items(
    family: Family, requests: ItemRequests, clips: TrainingClips[ReadyClip], rows: Sequence[int], *, batch: int
) -> NDArray[np.float64]:
    """Read items as inference does, with each clip of a batch encoded once.

    Args:
        family: in evaluation mode.
        requests: makes requests of items.
        clips: clips of the items.
        rows: of the table of items.
        batch: items per batch.

    Returns:
        [items, :data:`WIDTH`]: see :class:`Read`.
    """
    found = np.full((len(rows), WIDTH), np.nan)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        names = list(dict.fromkeys(clip for row in part for clip in requests.clips(row)))
        ready = dict(zip(names, clips.prepared(names), strict=True))
        asked = []
        for row in part:
            if requests.is_pair(row):
                asked += [requests.pair(row, ready, turned=turned) for turned in (False, True)]
            else:
                asked.append(requests.point(row, ready))
        sums = iter(SharedReader(family, all_visuals(ready), batch=batch).read([one.request for one in asked]))
        given = iter(asked)
        for at, row in enumerate(part, start=start):
            if requests.is_pair(row):
                orders = [(next(sums), next(given).right) for _ in range(2)]
                for order, (logs, _) in enumerate(orders):
                    found[at, 3 * order : 3 * order + 3] = _in_terms_of_a_and_b(logs, turned=order == 1)
                found[at, 7] = np.mean([logs[right] for logs, right in orders])
                found[at, 8] = np.mean([np.exp(logs).sum() for logs, _ in orders])
            else:
                logs, right = next(sums), next(given).right
                found[at, 6] = _shares(logs) @ requests.values(row)
                found[at, 7], found[at, 8] = logs[right], np.exp(logs).sum()
    return found


def _shares(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities among the answers."""
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def _in_terms_of_a_and_b(logs: NDArray[np.float64], *, turned: bool) -> NDArray[np.float64]:
    """Return the probabilities of A, B and tie in one order."""
    shares = np.zeros(len(PAIR_ANSWERS))
    shares[: len(logs)] = _shares(logs)
    return shares[[1, 0, 2]] if turned else shares
