"""Accuracy of rankers that answer 'a', 'b' or 'tie', and of constant answers.

Papers call two figures tau. Here ``tau`` is that of :mod:`vr_pipeline.statistics.agreement`, with ties by a threshold;
the tau of UnifiedReward (arXiv 2503.05236) is the share of correct answers, here ``three_way_accuracy``.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.statistics.agreement import without_nan
from vr_pipeline.statistics.labels import checked_preference

Labels = Sequence[str] | npt.ArrayLike


@dataclass(frozen=True)
class ThreeWay:
    """Agreement of a ranker with people.

    Attributes:
        three_way_accuracy: share of pairs with the same answer (tau of UnifiedReward); NaN without pairs.
        decided_accuracy: share of the pairs without a human tie with the correct winner, (correct - correct ties) /
            (n - ties) (diff of UnifiedReward); a tie by the ranker is wrong. NaN without such pairs.
        always_first: three-way accuracy of a constant 'a'.
        always_tie: three-way accuracy of a constant 'tie'.
        tie_share: share of ties by the ranker.
        n: number of pairs.
        n_ties: number of human ties.
    """

    three_way_accuracy: float
    decided_accuracy: float
    always_first: float
    always_tie: float
    tie_share: float
    n: int
    n_ties: int

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary for JSON (NaN as null)."""
        return without_nan(asdict(self))


def three_way(answers: Labels, preference: Labels) -> ThreeWay:
    """Compare a ranker with people.

    Args:
        answers: 'a', 'b' or 'tie' by the ranker, [pairs].
        preference: 'a', 'b' or 'tie' by people, [pairs].

    Raises:
        InputError: a label is unknown, or the numbers differ.
    """
    labels = checked_preference(preference, np.asarray(preference).size)
    found = checked_preference(answers, len(labels))
    n, tied = len(labels), labels == "tie"
    right = found == labels
    if not n:
        return ThreeWay(math.nan, math.nan, math.nan, math.nan, math.nan, 0, 0)
    decided = int((~tied).sum())
    return ThreeWay(
        three_way_accuracy=float(right.mean()),
        decided_accuracy=float(right[~tied].sum() / decided) if decided else math.nan,
        always_first=float((labels == "a").mean()),
        always_tie=float(tied.mean()),
        tie_share=float((found == "tie").mean()),
        n=n,
        n_ties=n - decided,
    )


def macro_accuracy(right: npt.ArrayLike, groups: Sequence[str] | npt.ArrayLike) -> float:
    """Return the mean over groups of the share of correct items, as VLRewardBench (arXiv 2411.17451).

    All groups have equal weights. NaN without items.

    Args:
        right: whether each item is correct, [items].
        groups: of the items, [items].

    Raises:
        InputError: shapes differ.
    """
    values, names = np.asarray(right, dtype=bool), np.asarray(groups).astype(str)
    if values.ndim != 1 or names.shape != values.shape:
        raise InputError(
            f"{values.size} items have {names.size} groups", remedy="Give the group of each item", field="group"
        )
    if not len(values):
        return math.nan
    _, codes = np.unique(names, return_inverse=True)
    return float((np.bincount(codes, weights=values) / np.bincount(codes)).mean())


def order_flips(first_order: Labels, second_order: Labels) -> float:
    """Return the share of pairs whose answer depends on the order of the clips.

    Args:
        first_order: answers with A first, in terms of A and B, [pairs].
        second_order: answers with B first, also in terms of A and B, [pairs].

    Returns:
        0 for a ranker without position bias; NaN without pairs.

    Raises:
        InputError: a label is unknown, or the numbers differ.
    """
    one = checked_preference(first_order, np.asarray(first_order).size)
    other = checked_preference(second_order, len(one))
    return float((one != other).mean()) if len(one) else math.nan
