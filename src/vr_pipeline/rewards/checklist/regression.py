"""Penalised logistic regression on differences of answers, with removal of negative weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.separation import likelihood_optimum
from vr_pipeline.statistics.labels import FloatArray

IntArray = npt.NDArray[np.int64]

_ROUGH = 1e-5
"""Gradient of the mean loss at which fits of the cross-validation stop."""


@dataclass(frozen=True)
class PairData:
    """Pairs for the fit: one row per vote, sorted by prompt and content, so that input order does not matter.

    Attributes:
        difference: answers of the preferred clip minus those of the other, [rows, questions].
        weight: of each row, [rows]; those of a pair add up to at most its sample weight.
        group: number of the prompt, ascending, [rows].
        n_pairs: number of pairs with a row.
        n_groups: number of prompts.
    """

    difference: FloatArray
    weight: FloatArray
    group: IntArray
    n_pairs: int
    n_groups: int

    @classmethod
    def make(
        cls,
        difference: FloatArray,
        labels: npt.NDArray[np.str_],
        *,
        groups: Sequence[str] | npt.ArrayLike | None = None,
        votes: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
    ) -> tuple[PairData, IntArray]:
        """Return the pairs, and the columns that are zero in all rows; arguments as in :func:`~.fit.fit_weights`."""
        if votes is None:
            shares = np.stack([labels == "a", labels == "b"], axis=1).astype(np.float64)
        else:
            shares = np.asarray(votes, dtype=np.float64)
            if shares.shape != (len(labels), 2) or not ((shares >= 0).all() and (shares.sum(axis=1) <= 1 + 1e-9).all()):
                raise InputError(
                    "votes are not two shares per pair that add up to at most 1",
                    remedy="Give the share of the annotators for A and for B of each pair",
                    field="votes",
                )
        if groups is not None and len(np.asarray(groups)) != len(labels):
            raise InputError(
                "groups do not have one entry per pair", remedy="Give the prompt of each pair", field="groups"
            )
        if sample_weight is not None:
            shares = shares * _relative(sample_weight, shares)[:, None]
        rows, sides = np.nonzero(shares)
        if not rows.size:
            raise InputError(
                f"all {len(labels)} preferences are ties" if len(labels) else "there are no preferences",
                remedy="Give pairs in which people preferred one clip (a or b)",
                field="preference",
            )
        signed = difference[rows] * np.where(sides == 0, 1.0, -1.0)[:, None] + 0.0  # + 0.0 turns -0.0 into 0.0
        weight = shares[rows, sides]
        if groups is None:
            # Every pair is a group. Groups are numbered by content, independent of the input order.
            order = np.lexsort((weight, _content_rank(signed)))
            if votes is None:
                group = np.arange(len(rows))
                rows, signed, weight = rows[order], signed[order], weight[order]
            else:
                _, first_seen = np.unique(rows[order], return_index=True)
                number = np.empty(len(labels), dtype=np.int64)
                number[rows[order][np.sort(first_seen)]] = np.arange(len(first_seen))
                order = order[np.argsort(number[rows[order]], kind="stable")]
                rows, signed, weight = rows[order], signed[order], weight[order]
                group = number[rows]
        else:
            _, codes = np.unique(np.asarray(groups).astype(str)[rows], return_inverse=True)
            order = np.lexsort((weight, _content_rank(signed), codes))
            rows, signed, weight, group = rows[order], signed[order], weight[order], codes[order]
        constant = np.flatnonzero(~signed.any(axis=0))
        data = cls(
            difference=np.ascontiguousarray(signed),
            weight=weight,
            group=group.astype(np.int64),
            n_pairs=int(np.unique(rows).size),
            n_groups=int(group[-1]) + 1,
        )
        return data, constant


def _relative(sample_weight: npt.ArrayLike, shares: FloatArray) -> FloatArray:
    """Return weights with mean 1 over the pairs with a preference, exactly 1 if all are equal."""
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != (len(shares),) or not (np.isfinite(weight) & (weight > 0)).all():
        raise InputError(
            "sample weights are not one finite number above 0 per pair",
            remedy="Give the weight of each pair",
            field="sample_weight",
        )
    decided = shares.any(axis=1)
    if not decided.any() or np.ptp(weight[decided]) == 0:
        return np.ones(len(weight))
    return weight / float(weight[decided].mean())


class _Solver:
    """scikit-learn's Newton solver on signed differences, started from the previous solution.

    The loss of a pair is the same in both orders, so every other row is reversed to give the two classes that
    scikit-learn needs; a single row is used in both orders.
    """

    def __init__(self, difference: FloatArray, weight: FloatArray) -> None:
        if len(difference) == 1:
            difference, weight = np.repeat(difference, 2, axis=0), np.repeat(weight / 2, 2)
        sign = np.where(np.arange(len(difference)) % 2 == 0, 1.0, -1.0)
        self.features = difference * sign[:, None]
        self.label = sign > 0
        self.weight = weight
        self._last: tuple[IntArray, FloatArray] = (np.empty(0, dtype=np.int64), np.empty((0, 0)))

    def fit(
        self,
        columns: IntArray,
        penalty: float,
        start: FloatArray,
        *,
        tolerance: float = 1e-8,
    ) -> FloatArray:
        """Return the optimal weights of the columns; ``start`` has their initial values."""
        from sklearn.linear_model import LogisticRegression

        if penalty > 0 and len(columns) > len(self.features):
            return self._fit_rows(columns, penalty, start, self.weight / self.weight.sum(), tolerance)
        model = LogisticRegression(
            C=1.0 / (penalty * self.weight.sum()) if penalty > 0 else np.inf,
            fit_intercept=False,
            solver="newton-cholesky",
            tol=tolerance,
            max_iter=200,
            warm_start=True,
        )
        model.coef_ = start[None, :].copy()
        model.intercept_ = np.zeros(1)
        features = self.features if len(columns) == self.features.shape[1] else self.features[:, columns]
        model.fit(features, self.label, sample_weight=self.weight)
        return np.asarray(model.coef_[0], dtype=np.float64)

    def _fit_rows(
        self, columns: IntArray, penalty: float, start: FloatArray, weight: FloatArray, tolerance: float
    ) -> FloatArray:
        """Fit more columns than rows by Newton's method in the dual, with one variable per row.

        At the optimum the weights are a sum of the rows (w = Z' a with a = weight * P(wrong) / penalty). A step solves
        (W Z Z' + penalty) a = W m + weight * P(wrong), with m the margins and W the curvature of each row.
        """
        import scipy.linalg

        signed = self.features * np.where(self.label, 1.0, -1.0)[:, None]
        products = self._products(signed, columns)
        margin = signed[:, columns] @ start
        value, rows = np.inf, np.zeros(len(margin))
        for _ in range(200):
            wrong = 1.0 / (1.0 + np.exp(np.minimum(margin, 700.0)))
            root = np.sqrt(weight * wrong * (1.0 - wrong))
            system = root[:, None] * products * root + penalty * np.eye(len(root))
            target = root * margin + np.sqrt(weight * wrong / np.maximum(1.0 - wrong, 1e-300))
            newton_rows = root * scipy.linalg.solve(system, target, assume_a="pos")
            step, size = newton_rows - rows, 1.0
            while True:  # halved until the objective falls
                rows_ahead = rows + size * step
                margin = products @ rows_ahead
                ahead = float(weight @ np.logaddexp(0.0, -margin) + penalty / 2 * rows_ahead @ margin)
                if ahead <= value or size < 1e-4:
                    break
                size /= 2
            rows, value = rows_ahead, ahead
            left = rows - weight / (1.0 + np.exp(np.minimum(margin, 700.0))) / penalty
            if penalty * float(np.abs(signed.T @ left)[columns].max()) <= tolerance:
                break
        return np.asarray((signed.T @ rows)[columns])

    def _products(self, signed: FloatArray, columns: IntArray) -> FloatArray:
        """Return Z Z' of the columns, updated from the last ones if few were removed."""
        known, products = self._last
        gone = np.setdiff1d(known, columns)
        if len(gone) > 8 or len(known) - len(gone) != len(columns):
            products = signed[:, columns] @ signed[:, columns].T
        elif len(gone):
            products = products - signed[:, gone] @ signed[:, gone].T
        self._last = (columns, products)
        return products


def fit_nonnegative(
    data: PairData,
    active: IntArray,
    penalty: float,
    *,
    nonnegative: bool = True,
    start: FloatArray | None = None,
) -> tuple[FloatArray, list[tuple[int, float]]]:
    """Fit the active columns; while a weight is negative, remove the most negative one and fit the rest again.

    ``start`` (all columns) only saves time.

    Returns:
        Weights of all columns, zero for removed ones, and (column, weight when removed) in order of removal.
    """
    solver = _Solver(data.difference, data.weight)
    columns = active
    solution = np.zeros(len(columns)) if start is None else start[columns]
    removals: list[tuple[int, float]] = []
    while columns.size:
        solution = solver.fit(columns, penalty, solution)
        worst = int(solution.argmin())
        if not nonnegative or solution[worst] >= 0:
            break
        removals.append((int(columns[worst]), float(solution[worst])))
        columns, solution = np.delete(columns, worst), np.delete(solution, worst)
    result = np.zeros(data.difference.shape[1])
    result[columns] = solution
    return result, removals


def choose_penalty(
    data: PairData, active: IntArray, penalties: Sequence[float], *, folds: int, seed: int
) -> tuple[float, list[dict[str, float]], FloatArray | None]:
    """Choose the penalty per pair with the lowest held-out log loss in cross-validation over prompts.

    Negative weights are not removed here: removals depend on the fold and would only add noise.

    Returns:
        The penalty (the strongest of equal ones), one record per penalty (``penalty``, ``log_loss`` per pair), and the
        weights fitted with it to all pairs as a starting point. With fewer than two prompts, the strongest penalty,
        no records and None.
    """
    from sklearn.model_selection import GroupKFold

    grid = sorted({float(value) for value in penalties}, reverse=True)
    if not grid or grid[-1] <= 0:
        raise InputError("penalties must be above 0", remedy="Give a list of positive numbers", field="penalties")
    n_folds = min(folds, data.n_groups)
    if n_folds < 2 or len(grid) == 1:
        return grid[0], [], None
    # Solutions on all pairs are starting points for the folds.
    whole = _Solver(data.difference[:, active], data.weight)
    columns = np.arange(len(active))
    starts: list[FloatArray] = []
    for penalty in grid:
        start = starts[-1] if starts else np.zeros(len(active))
        starts.append(whole.fit(columns, penalty, start, tolerance=_ROUGH))
    losses = np.zeros(len(grid))
    splitter = GroupKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    for fitted, held_out in splitter.split(data.difference, groups=data.group):
        solver = _Solver(data.difference[fitted][:, active], data.weight[fitted])
        difference = data.difference[held_out][:, active]
        for k, penalty in enumerate(grid):
            solution = solver.fit(columns, penalty, starts[k], tolerance=_ROUGH)
            losses[k] += data.weight[held_out] @ np.logaddexp(0.0, -(difference @ solution))
    losses /= data.weight.sum()
    path = [{"penalty": penalty, "log_loss": float(loss)} for penalty, loss in zip(grid, losses, strict=True)]
    best = int(losses.argmin())
    start = np.zeros(data.difference.shape[1])
    start[active] = starts[best]
    return grid[best], path, start


def edge_of_grid(penalty: float, path: Sequence[Mapping[str, float]]) -> list[str]:
    """Return warnings about the choice of the penalty."""
    if not path:
        return ["cross-validation could not choose the penalty: it needs two prompts and two penalties"]
    grid = [record["penalty"] for record in path]
    ends = {min(grid): ("weakest", "weaker"), max(grid): ("strongest", "stronger")}
    if penalty not in ends:
        return []
    which, further = ends[penalty]
    return [
        f"the chosen penalty {penalty:g} is the {which} of its grid; a {further} one may predict better: extend "
        "penalties"
    ]


def check_determined(data: PairData, kept: IntArray, weights: FloatArray, names: Sequence[str]) -> None:
    """Raise :class:`InputError` if the pairs do not determine the unpenalised weight of a question."""
    if not kept.size:
        return
    found = likelihood_optimum(data.difference[:, kept], data.weight, weights[kept])
    if found.determined.all():
        return
    place = int(np.flatnonzero(~found.determined)[0])
    raise InputError(
        f"the answers to '{names[kept[place]]}' repeat those to other questions, so many weights fit equally well"
        if found.collinear[place]
        else f"the answers to '{names[kept[place]]}', alone or with others, never contradict a preference, so no "
        "finite weights fit best",
        remedy="Give a penalty above 0, or let cross-validation choose it",
        field="penalty",
    )


def _content_rank(rows: FloatArray) -> IntArray:
    """Return the rank of each row by content; equal rows have equal ranks."""
    if not rows.shape[1]:
        return np.zeros(len(rows), dtype=np.int64)
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, rank = np.unique(whole, return_inverse=True)
    return np.asarray(rank, dtype=np.int64)
