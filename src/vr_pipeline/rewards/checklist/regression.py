"""The fit behind the weights: penalised logistic regression on answer differences, with removals and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.separation import likelihood_optimum, newton
from vr_pipeline.statistics.clustered import MINIMUM_PROMPTS
from vr_pipeline.statistics.labels import FloatArray

IntArray = npt.NDArray[np.int64]

_ROUGH = 1e-5
"""Largest gradient of the mean loss at which cross-validation stops: its losses are compared in the fourth digit."""

_LEVERAGE = 0.02
"""Share of the curvature from which on a prompt's own part is left out exactly."""

_TRIES = 40
"""Replicates that are fitted to see whether the pairs of drawn prompts are separated."""

SEPARATED = "no pair contradicts it, alone or with others, so that the penalty alone bounds the weight"
COLLINEAR = (
    "its answers repeat those of other questions in these pairs, so that the penalty alone shares the weight out"
)
FRAGILE = "without a few of the prompts no pair would contradict it, so that its upper end is not known"
ALIKE = "all prompts say exactly the same, which does not mean that others would"
PENALISED = "the penalty has drawn the weight out of the interval that the pairs give"


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
        """The rows for the fit, and the columns that are zero in all of them.

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
        """The same with more columns than rows: Newton's method on one number a row.

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
    """The penalty of lowest held-out log loss in cross-validation that never splits a prompt.

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
    """What there is to say of a penalty that cross-validation chose, or could not choose."""
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


@dataclass(frozen=True)
class WeightIntervals:
    """Ends of the intervals, [questions], NaN where there is none, and why by column; removed columns have neither."""

    low: FloatArray
    high: FloatArray
    reasons: dict[int, str]


def weight_intervals(
    data: PairData,
    kept: IntArray,
    weights: FloatArray,
    *,
    nonnegative: bool,
    samples: int,
    method: str,
    seed: int,
    level: float = 0.95,
) -> WeightIntervals:
    """Intervals of the weights of the kept questions, for new prompts, where the pairs alone determine them.

    A penalty draws the weights towards 0, and an interval around a drawn weight does not cover. So the interval is
    about the optimum without a penalty, with Student's t over prompts and the standard error

    * ``score``: sqrt((G - 1) / G sum_g d_g^2), with d_g the Newton step that the optimum takes when prompt g is left
      out (the cluster-robust covariance of the jackknife, CR3; MacKinnon, Nielsen and Webb 2023),
    * ``refit``: the standard deviation over ``samples`` fits to prompts drawn with replacement, times
      sqrt(G / (G - 1)).

    There is none, and a reason, for a question whose weight the pairs do not determine, with fewer than
    :data:`~vr_pipeline.statistics.clustered.MINIMUM_PROMPTS` prompts, where one prompt or the luck of the draw decides
    whether the pairs are separated, and where the penalty has moved the weight out of its own interval.
    """
    from scipy.stats import t

    if method not in ("score", "refit"):
        raise InputError(f"unknown bootstrap '{method}'", remedy="Use score or refit", field="bootstrap")
    low, high = np.full(len(weights), np.nan), np.full(len(weights), np.nan)
    if samples < 1 or not kept.size:
        return WeightIntervals(low, high, {})

    def none(reason: str) -> WeightIntervals:
        return WeightIntervals(low, high, {int(column): reason for column in kept} | reasons)

    reasons: dict[int, str] = {}
    found = likelihood_optimum(data.difference[:, kept], data.weight, weights[kept])
    for place in np.flatnonzero(~found.determined):
        reasons[int(kept[place])] = COLLINEAR if found.collinear[place] else SEPARATED
    if not found.determined.any():
        return none(SEPARATED)
    features = data.difference[found.rows][:, kept] @ found.basis
    speaking = (np.abs(features) > 1e-9).any(axis=1)
    features, weight = features[speaking], data.weight[found.rows][speaking]
    group = np.unique(data.group[found.rows][speaking], return_inverse=True)[1]
    n_groups = int(group[-1]) + 1
    if n_groups < MINIMUM_PROMPTS:
        return none(f"only {n_groups} prompts, an interval takes {MINIMUM_PROMPTS}")
    optimum = found.basis.T @ found.weights
    steps = _steps_without_a_prompt(features, weight / data.weight.sum(), group, optimum, found.curvature)
    if steps is None:
        return none(FRAGILE)
    if method == "score":
        # Pairs are separated by steps that move margins by 1 or more; with many prompts none comes near that.
        furthest = float(np.sqrt((features @ (steps.T @ steps) * features).sum(axis=1).max()))
        if furthest > 0.2 and _refit_draws(features, weight, group, optimum, _TRIES, seed) is None:
            return none(FRAGILE)
        error = np.sqrt((n_groups - 1) / n_groups * ((steps @ found.basis.T) ** 2).sum(axis=0))
    else:
        draws = _refit_draws(features, weight, group, optimum, samples, seed)
        if draws is None:
            return none(FRAGILE)
        error = np.sqrt(n_groups / (n_groups - 1)) * (draws @ found.basis.T).std(axis=0, ddof=1)
    half = float(t.ppf((1 + level) / 2, n_groups - 1)) * error
    for place in np.flatnonzero(found.determined):
        ends = found.weights[place] - half[place], found.weights[place] + half[place]
        if half[place] <= 1e-6 * max(1.0, abs(found.weights[place])):
            reasons[int(kept[place])] = ALIKE
            continue
        if not ends[0] <= weights[kept[place]] <= ends[1]:
            reasons[int(kept[place])] = PENALISED
            continue
        low[kept[place]], high[kept[place]] = max(ends[0], 0.0) if nonnegative else ends[0], ends[1]
    return WeightIntervals(low, high, reasons)


def _steps_without_a_prompt(
    features: FloatArray, weight: FloatArray, group: IntArray, optimum: FloatArray, curvature: FloatArray
) -> FloatArray | None:
    """How far the optimum moves when a prompt is left out, [prompts, directions]; None where it would have none."""
    wrong = 1.0 / (1.0 + np.exp(features @ optimum))
    scores = features * (weight * wrong)[:, None]
    starts = np.flatnonzero(np.r_[True, np.diff(group) > 0])
    scores = np.add.reduceat(scores, starts, axis=0)
    inverse = np.linalg.inv(curvature)
    spread = weight * wrong * (1 - wrong)
    leverage = np.add.reduceat(spread * ((features @ inverse) * features).sum(axis=1), starts)
    steps = -scores @ inverse
    ends = np.r_[starts[1:], len(features)]
    for i in np.flatnonzero(leverage > _LEVERAGE):
        own = features[starts[i] : ends[i]]
        rest = curvature - (own * spread[starts[i] : ends[i], None]).T @ own
        if np.linalg.eigvalsh(rest)[0] <= 1e-9 * curvature.trace():
            return None
        steps[i] = -np.linalg.solve(rest, scores[i])
    return steps


def _refit_draws(
    features: FloatArray, weight: FloatArray, group: IntArray, optimum: FloatArray, samples: int, seed: int
) -> FloatArray | None:
    """Optima of replicates of drawn prompts; None where more than one in forty has none."""
    from vr_pipeline.runtime.progress import progress_bar

    generator = np.random.default_rng(seed)
    n_groups, draws = int(group[-1]) + 1, []
    for number in progress_bar(range(samples), description="bootstrap of the weights", leave=False):
        drawn = weight * np.bincount(generator.integers(n_groups, size=n_groups), minlength=n_groups)[group]
        there = drawn > 0
        found = newton(features[there], drawn[there] / drawn.sum(), optimum)
        if found is not None:
            draws.append(found[0])
        elif number + 1 - len(draws) > samples / 40:
            return None
    return np.stack(draws)


def _content_rank(rows: FloatArray) -> IntArray:
    """Rank of each row by its content; equal rows have equal ranks."""
    if not rows.shape[1]:
        return np.zeros(len(rows), dtype=np.int64)
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, rank = np.unique(whole, return_inverse=True)
    return np.asarray(rank, dtype=np.int64)
