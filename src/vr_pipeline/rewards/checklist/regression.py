"""The fit behind the weights: penalised logistic regression on answer differences, with removals."""

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
"""Largest gradient of the mean loss at which cross-validation stops: its losses are compared in the fourth digit."""


@dataclass(frozen=True)
class PairData:
    """Pairs ready for the fit: one row a vote, sorted by prompt and content so that input order cannot matter.

    Attributes:
        difference: answers of the preferred clip minus those of the other, [rows, questions].
        weight: of each row, [rows]; the weights of one pair's rows add up to at most 1.
        group: number of the row's prompt, ascending, [rows].
        n_pairs: pairs with at least one row.
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
    ) -> tuple[PairData, IntArray]:
        """Return the rows for the fit, and the columns that are zero in all of them.

        Args:
            difference: answers on A minus answers on B, [pairs, questions].
            labels: 'a', 'b' or 'tie', [pairs].
            groups: prompt of each pair.
            votes: shares for A and for B, [pairs, 2], in place of the labels.
        """
        if votes is None:
            shares = np.stack([labels == "a", labels == "b"], axis=1).astype(np.float64)
        else:
            shares = np.asarray(votes, dtype=np.float64)
            if shares.shape != (len(labels), 2) or not ((shares >= 0).all() and (shares.sum(axis=1) <= 1 + 1e-9).all()):
                raise InputError(
                    "votes are not two shares a pair that add up to at most 1",
                    remedy="Give the share of the annotators for A and for B of each pair",
                    field="votes",
                )
        if groups is not None and len(np.asarray(groups)) != len(labels):
            raise InputError("there is not one group a pair", remedy="Give the prompt of each pair", field="groups")
        rows, sides = np.nonzero(shares)
        if not rows.size:
            raise InputError(
                f"all {len(labels)} preferences are ties, so that there is nothing to learn weights from"
                if len(labels)
                else "there are no preferences to learn weights from",
                remedy="Give pairs of which people preferred one clip (a or b)",
                field="preference",
            )
        signed = difference[rows] * np.where(sides == 0, 1.0, -1.0)[:, None] + 0.0  # + 0.0 turns -0.0 into 0.0
        weight = shares[rows, sides]
        if groups is None:
            # Each pair is its own group; sorting by content first makes the numbering independent of the input order.
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


class _Solver:
    """scikit-learn's Newton solver on signed differences, started from the previous solution.

    The loss of a pair is the same in both orders, so every other row is turned round to give the two classes that
    scikit-learn asks for; a single row is used in both orders.
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
        weight: FloatArray | None = None,
        *,
        tolerance: float = 1e-8,
    ) -> FloatArray:
        """Weights of the columns at the optimum; ``start`` has their starting values."""
        from sklearn.linear_model import LogisticRegression

        row_weight = self.weight if weight is None else weight
        if penalty > 0 and len(columns) > len(self.features):
            return self._fit_rows(columns, penalty, start, row_weight / row_weight.sum(), tolerance)
        model = LogisticRegression(
            C=1.0 / (penalty * row_weight.sum()) if penalty > 0 else np.inf,
            fit_intercept=False,
            solver="newton-cholesky",
            tol=tolerance,
            max_iter=200,
            warm_start=True,
        )
        model.coef_ = start[None, :].copy()
        model.intercept_ = np.zeros(1)
        features = self.features if len(columns) == self.features.shape[1] else self.features[:, columns]
        model.fit(features, self.label, sample_weight=row_weight)
        return np.asarray(model.coef_[0], dtype=np.float64)

    def _fit_rows(
        self, columns: IntArray, penalty: float, start: FloatArray, weight: FloatArray, tolerance: float
    ) -> FloatArray:
        """Fit with more columns than rows: Newton's method on one number a row.

        At the optimum the weights are a sum of the rows (w = Z' a with a = weight * P(wrong) / penalty), so that the
        step takes a system as large as the rows are many: (W Z Z' + penalty) a = W m + weight * P(wrong), with m the
        margins and W the curvature of each row.
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
        """Z Z' of these columns; from the last ones' where few have gone since."""
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
        Weights of all columns, zero outside the ones kept, and (column, weight when removed) in order of removal.
    """
    solver = _Solver(data.difference, data.weight)
    return _eliminate(solver, data.difference.shape[1], active, penalty, nonnegative, start=start)


def _eliminate(
    solver: _Solver,
    n_columns: int,
    active: IntArray,
    penalty: float,
    nonnegative: bool,
    *,
    start: FloatArray | None = None,
    weight: FloatArray | None = None,
) -> tuple[FloatArray, list[tuple[int, float]]]:
    columns = active
    solution = np.zeros(len(columns)) if start is None else start[columns]
    removals: list[tuple[int, float]] = []
    while columns.size:
        solution = solver.fit(columns, penalty, solution, weight)
        worst = int(solution.argmin())
        if not nonnegative or solution[worst] >= 0:
            break
        removals.append((int(columns[worst]), float(solution[worst])))
        columns, solution = np.delete(columns, worst), np.delete(solution, worst)
    result = np.zeros(n_columns)
    result[columns] = solution
    return result, removals


def choose_penalty(
    data: PairData, active: IntArray, penalties: Sequence[float], *, folds: int, seed: int
) -> tuple[float, list[dict[str, float]], FloatArray | None]:
    """Choose the penalty of lowest held-out log loss in cross-validation that never splits a prompt.

    The penalty is per pair, so that the choice made on a part of the pairs holds for all. Removals are left out here:
    they depend on the fold and would make the choice noisier without changing what the penalty has to do.

    Returns:
        The penalty (of equal ones the strongest), a record a penalty (``penalty``, ``log_loss`` per pair), and the
        weights of all columns fitted to all pairs with it, as a starting point. With fewer than two prompts the
        strongest penalty is taken, the path is empty and there is no starting point.
    """
    from sklearn.model_selection import GroupKFold

    grid = sorted({float(value) for value in penalties}, reverse=True)
    if not grid or grid[-1] <= 0:
        raise InputError("penalties must be above 0", remedy="Give a list of positive numbers", field="penalties")
    n_folds = min(folds, data.n_groups)
    if n_folds < 2 or len(grid) == 1:
        return grid[0], [], None
    # Solutions on all pairs only serve as starting points, a step or two away from those of the folds.
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
    """Say what there is to say of a penalty that cross-validation chose, or could not choose."""
    if not path:
        return ["the penalty could not be chosen by cross-validation, which takes two prompts and two penalties"]
    grid = [record["penalty"] for record in path]
    ends = {min(grid): ("weakest", "weaker"), max(grid): ("strongest", "stronger")}
    if penalty not in ends:
        return []
    which, further = ends[penalty]
    return [
        f"the chosen penalty {penalty:g} is the {which} of its grid, so that a {further} one may predict better: "
        "extend penalties"
    ]


def check_determined(data: PairData, kept: IntArray, weights: FloatArray, names: Sequence[str]) -> None:
    """Refuse weights without a penalty that the pairs do not determine.

    Raises:
        InputError: a question that no pair contradicts, alone or with others, or that repeats others.
    """
    if not kept.size:
        return
    found = likelihood_optimum(data.difference[:, kept], data.weight, weights[kept])
    if found.determined.all():
        return
    place = int(np.flatnonzero(~found.determined)[0])
    raise InputError(
        f"the answers to '{names[kept[place]]}' repeat those to other questions, so that many weights fit equally well"
        if found.collinear[place]
        else f"the answers separate the preferred clips perfectly or in part (see question '{names[kept[place]]}'), so "
        "that no finite weights fit best",
        remedy="Give a penalty above 0, or let cross-validation choose it",
        field="penalty",
    )


def _content_rank(rows: FloatArray) -> IntArray:
    """Rank of each row by its content; equal rows have equal ranks."""
    if not rows.shape[1]:
        return np.zeros(len(rows), dtype=np.int64)
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, rank = np.unique(whole, return_inverse=True)
    return np.asarray(rank, dtype=np.int64)
