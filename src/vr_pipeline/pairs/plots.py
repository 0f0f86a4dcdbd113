"""Plots of pairs: their gaps by dimension, and results of all candidates."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.drawing import Figure, new_figure

_KEPT, _REJECTED, _GREY = "#009E73", "#D55E00", "#9A9A9A"


def gap_by_dimension(candidates: pd.DataFrame) -> Figure:
    """Plot winner minus loser in every dimension, for pairs with (kept) and without (rejected) dominance.

    Args:
        candidates: pairs by total reward before any cap, with ``dominates`` and ``dim_*_gap`` columns.
    """
    from matplotlib.patches import Patch

    columns = [name for name in candidates.columns if name.startswith("dim_") and name.endswith("_gap")]
    names = [name.removeprefix("dim_").removesuffix("_gap") for name in columns]
    dominates = candidates["dominates"].to_numpy(dtype=bool)
    figure = new_figure(figsize=(2.4 + 1.15 * max(len(names), 2), 4.2), layout="constrained")
    axes = figure.add_subplot()
    handles: list[Patch] = []
    for shift, mask, colour, text in (
        (-0.18, dominates, _KEPT, "kept: the winner dominates"),
        (0.18, ~dominates, _REJECTED, "rejected: worse in some dimension"),
    ):
        handles.append(Patch(color=colour, alpha=0.55, label=f"{text} ({int(mask.sum())} pairs)"))
        for i, column in enumerate(columns):
            values = candidates.loc[mask, column].to_numpy(dtype=np.float64)
            if not len(values):
                continue
            low, first, middle, third, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
            axes.plot([i + shift] * 2, [low, high], color=colour, linewidth=1.2)
            axes.bar(i + shift, third - first, bottom=first, width=0.3, color=colour, alpha=0.55)
            axes.plot([i + shift - 0.15, i + shift + 0.15], [middle] * 2, color="black", linewidth=1.2)
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xticks(
        range(len(names)), names, rotation=25 if len(names) > 5 else 0, ha="right" if len(names) > 5 else "center"
    )
    axes.set_ylabel("reward gap, winner minus loser")
    axes.set_title("Gap by dimension (median, quartiles, 5 to 95 %)")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(
        handles=handles,
        fontsize=8,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12 if len(names) <= 5 else -0.25),
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def pair_fates(report: Mapping[str, Any]) -> Figure:
    """Plot the results of the candidate pairs of every recipe as stacked bars.

    Args:
        report: from :func:`vr_pipeline.pairs.report.pair_selection_report`.
    """
    fates = (
        ("selected_dominating", "selected, dominating", _KEPT),
        ("selected_not_dominating", "selected, not dominating", "#E69F00"),
        ("over_cap", "over the cap of the group", "#56B4E9"),
        ("over_number", "over the matched number", "#F0E442"),
        ("below_margin", "below the margin", "#CC79A7"),
        ("rejected_by_rule", "rejected by the rule", _REJECTED),
        ("tied", "equal total", _GREY),
    )
    recipes = list(report["strategies"])
    figure = new_figure(figsize=(8.0, 1.3 + 0.75 * len(recipes)), layout="constrained")
    axes = figure.add_subplot()
    left = np.zeros(len(recipes))
    for key, text, colour in fates:
        counts = np.array([report["strategies"][name]["fates"][key] for name in recipes], dtype=np.float64)
        if not counts.any():
            continue
        axes.barh(range(len(recipes)), counts, left=left, color=colour, label=text, height=0.6)
        for row, (count, start) in enumerate(zip(counts, left, strict=True)):
            total = report["strategies"][recipes[row]]["fates"]["candidates"]
            if count >= 0.06 * total:
                axes.text(start + count / 2, row, f"{int(count)}", ha="center", va="center", fontsize=8)
        left += counts
    axes.set_yticks(range(len(recipes)), recipes)
    axes.invert_yaxis()
    axes.set_xlabel("candidate pairs")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title("Candidate pairs by result")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
