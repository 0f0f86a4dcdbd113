"""Report on comparisons of clips: number, cost, ties and effect of the position."""

import math
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.statistics.agreement import without_nan
from vr_pipeline.statistics.clustered import clustered_mean
from vr_pipeline.statistics.three_way import order_flips

COST = ("clips", "comparisons", "requests")
"""Columns of the records of stored comparisons: numbers of clips, pairs and requests to the model."""

BY_ORDER = ("first_order", "second_order")
"""Suffixes of probabilities with A first and with B first; rankers by scores do not have these columns."""

_ANSWERS = ("a", "b", "tie")


def ranking_report(comparisons: pd.DataFrame, records: pd.DataFrame) -> dict[str, Any]:
    """Return counts, costs and means of comparisons; null for means over nothing.

    Args:
        comparisons: schema ``Comparisons``, with ``p_a``, ``p_b`` and ``p_tie`` of each of :data:`BY_ORDER` if the
            model compared in both orders.
        records: of the stored items, with the columns of :data:`COST`.

    Returns:
        planned ``prompts``, ``clips``, ``comparisons`` and ``requests``; ``compared`` and ``failed`` pairs; shares of
        ``ties`` and ``order_flips`` (the answer depends on the order of the clips); ``position_bias`` with ``mean`` and
        its 95 % interval by prompt, mean ``size`` and ``largest`` size; ``outside_mass`` with ``mean`` and ``largest``.
    """
    planned = {name: int(records[name].sum()) if name in records else 0 for name in COST}
    bias = comparisons["position_bias"].to_numpy(dtype=np.float64)
    outside = comparisons["outside_mass"].to_numpy(dtype=np.float64)
    mean = clustered_mean(bias, comparisons["prompt_id"].tolist())
    both_orders = all(f"p_a_{order}" in comparisons for order in BY_ORDER)
    flips = order_flips(*(_answers(comparisons, order) for order in BY_ORDER)) if both_orders else math.nan
    return without_nan(
        {
            "prompts": len(records),
            **planned,
            "compared": len(comparisons),
            "failed": planned["comparisons"] - len(comparisons),
            "ties": _mean(comparisons["better"] == "tie"),
            "order_flips": flips,
            "position_bias": without_nan({**mean.to_json(), "size": _mean(np.abs(bias)), "largest": _largest(bias)}),
            "outside_mass": without_nan({"mean": _mean(outside), "largest": _largest(outside)}),
        }
    )


def _answers(comparisons: pd.DataFrame, order: str) -> list[str]:
    """Return the likeliest answers in one order of the clips."""
    columns = [f"p_{answer}_{order}" for answer in _ANSWERS]
    return [_ANSWERS[at] for at in comparisons[columns].to_numpy(dtype=np.float64).argmax(axis=1)]


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _largest(values: Any) -> float:
    return float(np.abs(values).max()) if len(values) else math.nan
