"""Agreement of a trained model with people on held-out items by task and form, compared to constant answers."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.rewards.training.held_out import HeldOutParameters
from vr_pipeline.rewards.unifiedreward.training.labelled import LabelledItems
from vr_pipeline.rewards.unifiedreward.training.reading import Read
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.statistics.clustered import bootstrap_by_prompt
from vr_pipeline.statistics.three_way import macro_accuracy, order_flips, three_way

WHOLE = "all"
"""Dimension of rows about all dimensions of a task."""
MOST_COMPARED = 1000
"""Largest number of points of a prompt and dimension that are compared, first by identifier."""

REPORT_COLUMNS = [
    *("task", "form", "dimension", "n", "ties", "units"),
    *("diff", "diff_low", "diff_high", "tau", "tau_low", "tau_high", "tie_threshold"),
    *("three_way_accuracy", "three_way_accuracy_low", "three_way_accuracy_high", "macro_accuracy"),
    *("always_first", "always_tie", "one_order_diff", "order_flips", "position_bias", "first_place_lead"),
    *("spearman", "mean_absolute_error", "log_likelihood", "answer_mass"),
]
_LABELS = {"first": "a", "second": "b", "tie": "tie"}


def tie_thresholds(items: LabelledItems, rows: NDArray[np.int64], read: Read) -> dict[str, float]:
    """Return by task the lead up to which a pair is a tie, with the highest accuracy on these items."""
    found = {}
    table = items.table.iloc[rows]
    for task, part in _places(table, "pair", ["task"]):
        label = table["answer"].iloc[part].map(_LABELS).to_numpy(dtype=str)
        found[task[0]] = pairwise_accuracy(read.lead[part], label).epsilon
    return found


def report_on(
    items: LabelledItems,
    rows: NDArray[np.int64],
    read: Read,
    thresholds: Mapping[str, float],
    parameters: HeldOutParameters,
) -> pd.DataFrame:
    """Report on items that were not used to choose anything.

    Args:
        items: all items.
        rows: the rows to report on.
        read: the model's answers to them, in order.
        thresholds: of :func:`tie_thresholds` on other items.
        parameters: settings of the bootstrap.

    Returns:
        one row per task and form, and per dimension of points (:class:`vr_pipeline.schemas.UnifiedRewardReport`).
    """
    table, found = items.table.iloc[rows], []
    for (task,), part in _places(table, "pair", ["task"]):
        own = _pairs(table.iloc[part], read.part(part), thresholds.get(task, 0.0), parameters)
        found.append({"task": task, "form": "pair", "dimension": WHOLE} | own)
    for (task,), part in _places(table, "point", ["task"]):
        of_task = table.iloc[part]
        by_dimension: list[tuple[tuple[str, ...], NDArray[np.int64]]] = [((WHOLE,), np.arange(len(part)))]
        if of_task["dimension"].nunique() > 1:
            by_dimension += _places(of_task, "point", ["dimension"])
        for (dimension,), chosen in by_dimension:
            own = _points(of_task.iloc[chosen], read.part(part[chosen]), parameters)
            found.append({"task": task, "form": "point", "dimension": dimension} | own)
    return pd.DataFrame(found, columns=REPORT_COLUMNS)


def chosen_by(items: LabelledItems, rows: NDArray[np.int64], read: Read) -> dict[str, float]:
    """Return by task and form the share of pairs, or pairs of points, in the correct order, without human ties."""
    table, found = items.table.iloc[rows], {}
    for (task,), part in _places(table, "pair", ["task"]):
        label = table["answer"].iloc[part].map(_LABELS).to_numpy(dtype=str)
        found[f"{task}_pair"] = pairwise_accuracy(read.lead[part], label).diff
    for (task,), part in _places(table, "point", ["task"]):
        right, compared = _ordered(table.iloc[part], read.score[part])
        found[f"{task}_point"] = float(right.sum() / compared.sum()) if compared.sum() else math.nan
    return found


def _places(table: pd.DataFrame, form: str, columns: list[str]) -> list[tuple[tuple[str, ...], NDArray[np.int64]]]:
    """Return the values of columns among items of a form, sorted, with the positions of each."""
    places: dict[tuple[str, ...], list[int]] = {}
    for at, (own, *values) in enumerate(table[["form", *columns]].itertuples(index=False, name=None)):
        if own == form:
            places.setdefault(tuple(values), []).append(at)
    return [(key, np.array(places[key], dtype=np.int64)) for key in sorted(places)]


def _pairs(table: pd.DataFrame, read: Read, threshold: float, parameters: HeldOutParameters) -> dict[str, Any]:
    label = table["answer"].map(_LABELS).to_numpy(dtype=str)
    lead, units, answers = read.lead, table["unit"].to_numpy(dtype=str), read.answers()
    agreement, counted = pairwise_accuracy(lead, label, epsilon=threshold), three_way(answers, label)
    decided = label != "tie"
    one = read.probabilities[:, 0, 0] - read.probabilities[:, 0, 1]
    return {
        "n": agreement.n,
        "ties": agreement.n_ties,
        "units": len(np.unique(units)),
        "tie_threshold": threshold,
        "macro_accuracy": macro_accuracy(np.sign(lead[decided]) == _signs(label[decided]), table["source"][decided]),
        "always_first": counted.always_first,
        "always_tie": counted.always_tie,
        "one_order_diff": pairwise_accuracy(one, label).diff,
        "order_flips": order_flips(read.answers(0), read.answers(1)),
        "position_bias": float(np.abs(read.position_bias).mean()),
        "first_place_lead": float(read.position_bias.mean()),
        **_likelihoods(read),
        **_with_interval("diff", lambda rows: pairwise_accuracy(lead[rows], label[rows]).diff, units, parameters),
        **_with_interval(
            "tau",
            lambda rows: pairwise_accuracy(lead[rows], label[rows], epsilon=threshold).tau,
            units,
            parameters,
        ),
        **_with_interval(
            "three_way_accuracy",
            lambda rows: three_way(answers[rows], label[rows]).three_way_accuracy,
            units,
            parameters,
        ),
    }


def _signs(label: NDArray[np.str_]) -> NDArray[np.float64]:
    return np.where(label == "a", 1.0, -1.0)


def _points(table: pd.DataFrame, read: Read, parameters: HeldOutParameters) -> dict[str, Any]:
    from scipy.stats import spearmanr

    grade, units = table["answer"].to_numpy(dtype=np.float64), table["unit"].to_numpy(dtype=str)
    right, compared = _ordered(table, read.score)
    constant = np.ptp(grade) == 0 or np.ptp(read.score) == 0

    def share(rows: NDArray[np.int64]) -> float:
        total = compared[rows].sum()
        return float(right[rows].sum() / total) if total else math.nan

    return {
        "n": len(table),
        "units": len(np.unique(units)),
        "spearman": math.nan if constant else float(spearmanr(grade, read.score).statistic),
        "mean_absolute_error": float(np.abs(grade - read.score).mean()),
        **_likelihoods(read),
        **_with_interval("diff", share, units, parameters),
    }


def _likelihoods(read: Read) -> dict[str, float]:
    return {"log_likelihood": float(read.right.mean()), "answer_mass": float(read.mass.mean())}


def _ordered(table: pd.DataFrame, score: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compare the points of each prompt and dimension.

    Returns:
        for each point, the number of points with another grade in correct order (equal scores are wrong), and of all.
    """
    grade = table["answer"].to_numpy(dtype=np.float64)
    right, compared = np.zeros((2, len(table)))
    for _, part in _places(table, "point", ["prompt", "dimension"]):
        some = part[:MOST_COMPARED]
        order = np.sign(grade[some, None] - grade[None, some])
        agrees = order * np.sign(score[some, None] - score[None, some]) > 0
        right[some], compared[some] = agrees.sum(axis=1), (order != 0).sum(axis=1)
    return right, compared


def _with_interval(
    name: str, statistic: Callable[[NDArray[np.int64]], float], units: NDArray[np.str_], parameters: HeldOutParameters
) -> dict[str, float]:
    """Return a share and the ends of its 95 % interval by unit."""
    low, high = bootstrap_by_prompt(
        statistic, units, kinds=("share",), samples=parameters.bootstrap_samples, seed=parameters.seed
    )
    return {name: statistic(np.arange(len(units))), f"{name}_low": float(low), f"{name}_high": float(high)}
