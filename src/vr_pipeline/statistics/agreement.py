"""Agreement of a score with people's preferences on pairs of clips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.statistics.labels import FloatArray, checked_preference


@dataclass(frozen=True)
class Agreement:
    """Accuracy of score differences on pairs that people compared.

    Attributes:
        tau: share of pairs put in the right order or rightly called a tie, with ties called where the difference is
            at most ``epsilon`` (0 to 1); NaN without pairs.
        diff: share of the pairs without a human tie whose order is right; a difference of exactly 0 counts as wrong.
            NaN without such pairs.
        epsilon: the threshold of ``tau``, in units of the score.
        n: number of pairs.
        n_ties: number of pairs that people tied.
    """

    tau: float
    diff: float
    epsilon: float
    n: int
    n_ties: int

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold (NaN as null)."""
        return without_nan(asdict(self))


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON can hold them: null instead of NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def check_finite(difference: FloatArray) -> None:
    """Reject differences that cannot be ordered.

    Raises:
        InputError: with the row, counted from 1, of one that is not a finite number.
    """
    bad = ~np.isfinite(difference)
    if bad.any():
        raise InputError(
            "a score difference is not a finite number",
            remedy="Leave out pairs without scores",
            field="difference",
            row=int(bad.argmax()) + 1,
        )


def pairwise_accuracy(
    difference: npt.ArrayLike, preference: Sequence[str] | npt.ArrayLike, *, epsilon: float | None = None
) -> Agreement:
    """Pairwise accuracy with tie calibration (tau) and without human ties (diff).

    Deutsch, Foster and Freitag 2023, "Ties Matter" (arXiv 2305.14324): a difference of at most epsilon in size is a
    predicted tie, and epsilon is the value of highest accuracy among 0 and all sizes that occur; the smallest of equal
    ones is taken. Pairs of the same size change together, so the result does not depend on their order. One sort,
    O(n log n).

    Args:
        difference: score of A minus score of B, [pairs].
        preference: 'a', 'b' or 'tie', [pairs].
        epsilon: a threshold chosen elsewhere (on other pairs) instead of the best one here.

    Raises:
        InputError: unknown label, a difference that is not a number, shapes that do not fit.
    """
    values = np.asarray(difference, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"differences have shape {values.shape}", remedy="Give one a pair", field="difference")
    labels = checked_preference(preference, len(values))
    check_finite(values)
    if epsilon is not None and not epsilon >= 0:
        raise InputError(f"the threshold {epsilon} is not 0 or more", remedy="Give 0 or more", field="epsilon")
    tied = labels == "tie"
    right = ((values > 0) & (labels == "a")) | ((values < 0) & (labels == "b"))
    n, n_ties = len(values), int(tied.sum())
    diff = float(right.sum() / (n - n_ties)) if n > n_ties else math.nan
    if not n:
        return Agreement(math.nan, diff, 0.0 if epsilon is None else float(epsilon), 0, 0)
    size = np.abs(values)
    if epsilon is not None:
        called = size <= epsilon
        return Agreement(float((called & tied | ~called & right).sum() / n), diff, float(epsilon), n, n_ties)
    order = np.argsort(size, kind="stable")
    size = size[order]
    # What calling a tie changes: a human tie becomes right, a pair in the right order becomes wrong.
    change = np.cumsum(tied[order].astype(np.int64) - right[order].astype(np.int64))
    last_of_size = np.flatnonzero(np.r_[size[1:] != size[:-1], True])
    candidates, correct = size[last_of_size], int(right.sum()) + change[last_of_size]
    if candidates[0] != 0.0:  # epsilon 0 calls no tie where no difference is exactly 0
        candidates, correct = np.r_[0.0, candidates], np.r_[int(right.sum()), correct]
    best = int(correct.argmax())
    return Agreement(float(correct[best] / n), diff, float(candidates[best]), n, n_ties)
