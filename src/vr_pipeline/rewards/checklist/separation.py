"""Which weights the pairs determine without a penalty, and how precisely.

The likelihood of a logistic regression has no finite optimum along a direction in which no pair contradicts the others
(complete or partial separation), and is flat along a direction in which no pair differs (collinear questions, more
questions than pairs). There, only the penalty determines the weight, and intervals from the pairs have no meaning.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vr_pipeline.statistics.labels import FloatArray

BoolArray = npt.NDArray[np.bool_]

_STEPS = 30
_NOTHING = 1e-7
"""Differences of answers and margins below this count as 0."""


@dataclass(frozen=True)
class Likelihood:
    """The optimum of the likelihood in the directions that the pairs determine.

    Attributes:
        rows: the pairs that no direction separates, [rows].
        determined: questions whose weight the pairs determine, [questions].
        collinear: questions that are not determined because others repeat them, [questions].
        basis: determined directions, orthonormal, [questions, directions].
        weights: the optimum within the basis, [questions].
        curvature: of the mean negative log likelihood, [directions, directions].
    """

    rows: BoolArray
    determined: BoolArray
    collinear: BoolArray
    basis: FloatArray
    weights: FloatArray
    curvature: FloatArray


def likelihood_optimum(difference: FloatArray, weight: FloatArray, start: FloatArray) -> Likelihood:
    """Maximise the likelihood without a penalty, in the directions that have an optimum.

    Along a direction d with difference @ d >= 0 the likelihood only rises. Pairs with a positive product for such a
    direction are separated; in the limit they are predicted correctly and have no influence, so they are removed. The
    rest has an optimum, unique except for directions in which no remaining pair differs. A question is determined if
    its axis is in the span of the remaining pairs (Albert and Anderson 1984; Konis 2007 for the linear program).

    Args:
        difference: answers of the preferred clip minus those of the other, [rows, questions].
        weight: of each row.
        start: initial weights, which only save time.
    """
    rows = np.ones(len(difference), dtype=bool)
    collinear = ~_determined(_basis(difference))
    while True:
        basis = _basis(difference[rows])
        if not basis.shape[1]:
            break
        found = newton(difference[rows] @ basis, weight[rows] / weight.sum(), basis.T @ start)
        if found is not None:
            return Likelihood(rows, _determined(basis), collinear, basis, basis @ found[0], found[1])
        separated = _separated(difference[rows])
        if not separated.any():  # the optimum is too far away to compute
            break
        rows[np.flatnonzero(rows)[separated]] = False
    nothing = np.zeros((difference.shape[1], 0))
    return Likelihood(rows, _determined(nothing), collinear, nothing, np.zeros(len(nothing)), np.zeros((0, 0)))


def _basis(difference: FloatArray) -> FloatArray:
    """Return orthonormal directions in which a row differs; the axes if they are all."""
    size = difference.shape[1]
    if not len(difference):
        return np.zeros((size, 0))
    if len(difference) < size:
        _, values, directions = np.linalg.svd(difference, full_matrices=False)
        return np.asarray(directions[values > _NOTHING * max(float(values[0]), 1.0)].T)
    # Decomposing the product is much faster, and precise enough for answers.
    values, vectors = np.linalg.eigh(difference.T @ difference)
    kept = values > 1e-10 * max(float(values[-1]), 1e-300)
    return np.eye(size) if kept.all() else np.asarray(vectors[:, kept])


def _determined(basis: FloatArray) -> BoolArray:
    """Return which axes are in the span of the basis."""
    return np.asarray((basis**2).sum(axis=1) > 1 - 1e-6)


def newton(features: FloatArray, weight: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Return the unpenalised optimum and its curvature; None if the steps do not converge.

    A step that changes no margin by 1 proves that an optimum exists: the rows, weighted by their scores after the step,
    add up to 0 with positive weights, so no direction separates them (Stiemke).
    """
    import scipy.linalg

    solution = start.copy()
    for _ in range(_STEPS):
        wrong = 1.0 / (1.0 + np.exp(np.minimum(features @ solution, 700.0)))
        score = features.T @ (weight * wrong)
        curvature = (features * (weight * wrong * (1 - wrong))[:, None]).T @ features
        try:
            step = scipy.linalg.cho_solve(scipy.linalg.cho_factor(curvature), score)
        except np.linalg.LinAlgError:
            return None
        move = float(np.abs(features @ step).max())
        if not np.isfinite(move):
            return None
        solution = solution + step * min(1.0, 4.0 / max(move, 1e-12))
        if move < 1e-4:  # the next step would be below 1e-8
            return solution, curvature
    return None


def _separated(difference: FloatArray) -> BoolArray:
    """Return the rows with a positive product with some direction that has no negative product with any row."""
    separated = np.zeros(len(difference), dtype=bool)
    columns = np.ones(difference.shape[1], dtype=bool)
    # Mostly a single question never contradicts, which needs no linear program.
    while True:
        rest = difference[~separated][:, columns]
        low, high = rest.min(axis=0, initial=0.0), rest.max(axis=0, initial=0.0)
        one_sided = ((low >= -_NOTHING) ^ (high <= _NOTHING)) & (np.maximum(high, -low) > _NOTHING)
        if not one_sided.any():
            break
        separated |= np.abs(difference[:, np.flatnonzero(columns)[one_sided]]).max(axis=1) > _NOTHING
        columns[np.flatnonzero(columns)[one_sided]] = False
    if separated.any():
        return separated
    from scipy.optimize import linprog

    rows, back = np.unique(difference, axis=0, return_inverse=True)
    result = linprog(-rows.sum(axis=0), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1.0, 1.0), method="highs")
    products = rows @ result.x if result.status == 0 else np.zeros(len(rows))
    return np.asarray((products > _NOTHING)[back.ravel()])
