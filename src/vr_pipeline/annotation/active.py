"""Choice of the pairs that people are asked next, from what is known before they answer.

Two measures, both for pairs nobody has answered:

* information: how much an answer is expected to reduce the uncertainty of the fitted weights where it matters, on the
  differences of the candidate pairs (Bayesian V-optimal design for logistic regression; Chaloner and Verdinelli 1995);
* disagreement: the information that an answer has about which of several rewards is right (Houlsby et al. 2011, BALD).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.statistics.labels import FloatArray

PRECISION = 1.0
"""Prior precision of a weight, for answers between 0 and 1: a standard deviation of 1 in log odds."""
_EQUAL = 1e-9


def covariance_of_weights(
    differences: npt.ArrayLike, weights: npt.ArrayLike, *, precision: float = PRECISION
) -> FloatArray:
    """Return the covariance of the weights given answers to pairs (Laplace's approximation), [questions, questions].

    Args:
        differences: encoded answers on A minus those on B of the answered pairs, [pairs, questions].
        weights: current weights, [questions]; zeros before the first fit.
        precision: prior precision of each weight.
    """
    z = np.asarray(differences, dtype=np.float64)
    w = np.asarray(weights, dtype=np.float64)
    information = precision * np.eye(len(w)) + (z * _variances(z @ w)[:, None]).T @ z
    return np.asarray(np.linalg.inv(information), dtype=np.float64)


def most_informative(
    differences: npt.ArrayLike,
    weights: npt.ArrayLike,
    covariance: npt.ArrayLike,
    *,
    prompts: Sequence[str] | npt.ArrayLike,
    number: int | None = None,
    asked: Sequence[str] = (),
    pool: npt.ArrayLike | None = None,
) -> list[int]:
    """Return candidate pairs in the order to ask them, each chosen given all earlier ones.

    The next pair is the one whose answer reduces the mean variance of the predicted log odds over the pool most:
    v mean (a C z)^2 / (1 + v z C z), with the covariance C, the pair's difference z, the variance v = p (1 - p) of its
    answer, and the mean over the differences a of the pool. So pairs come first whose answer is uncertain and says
    much about other pairs, and a pair like an earlier one comes later. No prompt gets ahead of the others: while the
    least asked prompt with a pair left has had k pairs, no prompt gets more than 2 k + 2.

    Args:
        differences: encoded answers on A minus those on B of the candidates, [pairs, questions].
        weights: current weights, [questions].
        covariance: of the weights, [questions, questions]; see :func:`covariance_of_weights`.
        prompts: of the candidates, [pairs]; the same for all to ignore prompts.
        number: of pairs; None for all.
        asked: prompts of pairs asked before, each as often as it was asked.
        pool: differences on which the reward is to be certain, [pairs, questions]; None for the candidates.

    Returns:
        positions of candidates; of equal ones, the first.
    """
    z = np.asarray(differences, dtype=np.float64)
    names, codes = np.unique(np.asarray(prompts).astype(str), return_inverse=True)
    turns = np.array([list(asked).count(str(name)) for name in names], dtype=np.int64)
    variance = _variances(z @ np.asarray(weights, dtype=np.float64))
    c = np.array(covariance, dtype=np.float64)
    a = z if pool is None else np.asarray(pool, dtype=np.float64)
    moments = a.T @ a / max(len(a), 1)
    left = np.ones(len(z), dtype=bool)
    chosen: list[int] = []
    for _ in range(len(z) if number is None else min(number, len(z))):
        open_turns = turns[codes]
        allowed = left & (open_turns <= 2 * open_turns[left].min() + 1)
        rows = np.flatnonzero(allowed)
        moved = z[rows] @ c
        gain = variance[rows] * np.einsum("ij,jk,ik->i", moved, moments, moved)
        gain /= 1.0 + variance[rows] * np.einsum("ij,ij->i", moved, z[rows])
        # Rounding must not decide between equal pairs.
        best = int(np.flatnonzero(gain >= gain.max() * (1 - _EQUAL))[0])
        place = int(rows[best])
        chosen.append(place)
        left[place] = False
        turns[codes[place]] += 1
        direction = moved[best]
        c -= np.outer(direction, direction) * variance[place] / (1.0 + variance[place] * float(direction @ z[place]))
    return chosen


def disagreement(margins: npt.ArrayLike) -> FloatArray:
    """Return how much rewards disagree about pairs, in bits from 0 to 1, [pairs].

    Each reward gives a pair the probability of A from its margin in units of its standard deviation; the disagreement
    is the entropy of their mean minus the mean of their entropies.

    Args:
        margins: reward of A minus that of B, [rewards, pairs].

    Raises:
        InputError: there are fewer than two rewards.
    """
    x = np.asarray(margins, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise InputError(
            "a disagreement needs two rewards", remedy="give a further table of rewards", field="--rewards"
        )
    scale = np.sqrt((x**2).mean(axis=1, keepdims=True))
    p = _sigmoid(2.0 * x / np.where(scale > 0, scale, 1.0))
    return np.maximum(_entropy(p.mean(axis=0)) - _entropy(p).mean(axis=0), 0.0)


def _sigmoid(x: FloatArray) -> FloatArray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def _variances(log_odds: FloatArray) -> FloatArray:
    p = _sigmoid(log_odds)
    return p * (1.0 - p)


def _entropy(p: FloatArray) -> FloatArray:
    q = np.clip(p, 1e-12, 1 - 1e-12)
    return -(q * np.log2(q) + (1 - q) * np.log2(1 - q))
