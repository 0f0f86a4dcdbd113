"""Agreement of a score with human preferences on pairs of clips."""

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
    """Accuracy of score differences on human preferences.

    Attributes:
        tau: share of pairs with the correct order or tie (0 to 1), where a difference of at most ``epsilon`` is a tie;
            NaN without pairs.
        diff: share of the pairs without a human tie in the correct order, where a difference of 0 is wrong; NaN
            without such pairs.
        epsilon: the threshold of ``tau``, in units of the score.
        n: number of pairs.
        n_ties: number of human ties.
    """

    tau: float
    diff: float
    epsilon: float
    n: int
    n_ties: int

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary for JSON (NaN as null)."""
        return without_nan(asdict(self))


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for JSON, with null for NaN."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def check_finite(difference: FloatArray) -> None:
    """Raise :class:`InputError` with the row (from 1) of the first difference that is not finite."""
    bad = ~np.isfinite(difference)
    if bad.any():
        raise InputError(
            "a score difference is not a finite number",
            remedy="Remove pairs without scores",
            field="difference",
            row=int(bad.argmax()) + 1,
        )


def pairwise_accuracy(
    difference: npt.ArrayLike, preference: Sequence[str] | npt.ArrayLike, *, epsilon: float | None = None
) -> Agreement:
    """Compute pairwise accuracy with tie calibration (tau) and without human ties (diff).

    Deutsch, Foster and Freitag 2023, "Ties Matter" (arXiv 2305.14324): an absolute difference of at most epsilon is a
    predicted tie, and epsilon is the value with the highest accuracy among 0 and all absolute differences; of several,
    the smallest. The result does not depend on the order of pairs and costs O(n log n).

    Args:
        difference: score of A minus score of B, [pairs].
        preference: 'a', 'b' or 'tie', [pairs].
        epsilon: a threshold chosen on other pairs; None for the best on these.

    Raises:
        InputError: a label is unknown, a difference is not finite, or shapes differ.
    """
    values = np.asarray(difference, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"differences have shape {values.shape}", remedy="Give one per pair", field="difference")
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
    # Predicting a tie makes a human tie correct, and a correct order wrong.
    change = np.cumsum(tied[order].astype(np.int64) - right[order].astype(np.int64))
    last_of_size = np.flatnonzero(np.r_[size[1:] != size[:-1], True])
    candidates, correct = size[last_of_size], int(right.sum()) + change[last_of_size]
    if candidates[0] != 0.0:  # without differences of 0, epsilon 0 predicts no ties
        candidates, correct = np.r_[0.0, candidates], np.r_[int(right.sum()), correct]
    best = int(correct.argmax())
    return Agreement(float(correct[best] / n), diff, float(candidates[best]), n, n_ties)
