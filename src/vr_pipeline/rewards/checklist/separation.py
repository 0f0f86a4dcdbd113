"""Which weights the pairs determine by themselves, and how precisely, without the help of a penalty.

The likelihood of a logistic regression has no finite optimum along a direction in which no pair contradicts the others
(separation, complete or partial), and it is flat along a direction in which no pair differs (collinear questions,
more questions than pairs). A penalty gives a finite weight there all the same, but then it is the penalty that sets
the weight, and no interval computed from the pairs means anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vr_pipeline.statistics.labels import FloatArray

BoolArray = npt.NDArray[np.bool_]

_STEPS = 30
_NOTHING = 1e-7
"""Differences of answers and margins below this are taken as 0."""


@dataclass(frozen=True)
class Likelihood:
    """The optimum of the likelihood over what the pairs determine.

    Attributes:
        rows: the pairs that take part: those that no direction separates, [rows].
        determined: the questions whose weight the pairs determine, [questions].
        collinear: the others that are not determined because questions repeat each other, [questions].
        basis: directions that are determined, orthonormal, [questions, directions].
        weights: the optimum, within the basis, [questions].
        curvature: of the mean negative log likelihood there, [directions, directions].
    """

    rows: BoolArray
    determined: BoolArray
    collinear: BoolArray
    basis: FloatArray
    weights: FloatArray
    curvature: FloatArray


def likelihood_optimum(difference: FloatArray, weight: FloatArray, start: FloatArray) -> Likelihood:
    """Maximise the likelihood without a penalty, over the part of it that has an optimum.

    Along a direction d with difference @ d >= 0 the likelihood only rises. The pairs with a positive product for some
    such direction are separated: in the limit they are all predicted rightly and say nothing more, so they are put
    aside. What remains has an optimum, unique but for directions in which no remaining pair differs. A question is
    determined if its axis lies in the span of the remaining pairs (Albert and Anderson 1984; Konis 2007 for the linear
    program).

    Args:
        difference: answers of the preferred clip minus those of the other, [rows, questions].
        weight: of each row.
        start: weights to start from; they only save time.
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
        if not separated.any():  # an optimum so far away that it cannot be computed
            break
        rows[np.flatnonzero(rows)[separated]] = False
    nothing = np.zeros((difference.shape[1], 0))
    return Likelihood(rows, _determined(nothing), collinear, nothing, np.zeros(len(nothing)), np.zeros((0, 0)))


def _basis(difference: FloatArray) -> FloatArray:
    """Orthonormal directions in which some row differs; the axes themselves where that is all."""
    size = difference.shape[1]
    if not len(difference):
        return np.zeros((size, 0))
    if len(difference) < size:
        _, values, directions = np.linalg.svd(difference, full_matrices=False)
        return np.asarray(directions[values > _NOTHING * max(float(values[0]), 1.0)].T)
    # Of the two, the products are much faster to decompose, and precise enough for answers.
    values, vectors = np.linalg.eigh(difference.T @ difference)
    kept = values > 1e-10 * max(float(values[-1]), 1e-300)
    return np.eye(size) if kept.all() else np.asarray(vectors[:, kept])


def _determined(basis: FloatArray) -> BoolArray:
    """Return the axes that lie in the span of the basis."""
    return np.asarray((basis**2).sum(axis=1) > 1 - 1e-6)


def newton(features: FloatArray, weight: FloatArray, start: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Find the unpenalised optimum and the curvature there; None where no step brings it within reach.

    A step that changes no margin by 1 proves that there is an optimum: the rows, each weighted with what is left of
    its score after the step, add up to 0 with positive weights, so that no direction can separate them (Stiemke).
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
        if move < 1e-4:  # the next would be below 1e-8
            return solution, curvature
    return None


def _separated(difference: FloatArray) -> BoolArray:
    """Find the rows that have a positive product with some direction with which no row has a negative one."""
    separated = np.zeros(len(difference), dtype=bool)
    columns = np.ones(difference.shape[1], dtype=bool)
    # Most cases are a question that never contradicts; these need no linear program.
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
