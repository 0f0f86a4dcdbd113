"""Figures of an evaluation, without global state.

``titles`` are the titles of policies, the original first, in the order of the colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.drawing import Figure, new_figure
from vr_pipeline.evaluation.report.comparison import SOURCES
from vr_pipeline.statistics.clustered import interval

# Grey for the original, then Okabe and Ito's palette, distinguishable with common colour vision deficiencies.
_PALETTE = ("#8A8F94", "#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")

_PANELS = (
    ("validation_reward", "validation reward at checkpoints", None),
    ("loss", "loss", None),
    ("implicit_accuracy", "implicit accuracy", 0.5),
    ("winner_change", "winners: error against the reference", 0.0),
    ("loser_change", "losers: error against the reference", 0.0),
    ("logit_p50", "term inside the sigmoid, median and 10 to 90 %", 0.0),
    ("saturation", "saturation", 0.5),
    ("gradient_norm", "gradient norm", None),
    ("learning_rate", "learning rate", None),
)


def colours(titles: Mapping[str, str]) -> dict[str, str]:
    """Return the colour of each policy."""
    return {name: _PALETTE[place % len(_PALETTE)] for place, name in enumerate(titles)}


def rewards_by_dimension(metrics: Mapping[str, Any], titles: Mapping[str, str]) -> Figure:
    """Draw the mean reward of every policy by dimension with 95 % intervals, one panel per source."""
    first = metrics["policies"][next(iter(titles))]
    dimensions_of = {name: list(first[name]["dimensions"]) for name in SOURCES if name in first}
    prompts = int(metrics["clips"]["prompts"])
    if not dimensions_of:
        return _nothing("no reward judges the clips of this run")
    widths = [1.4 + 0.95 * max(len(dimensions), 3) for dimensions in dimensions_of.values()]
    figure = new_figure(figsize=(sum(widths), 4.4), layout="constrained")
    panels = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    width = 0.8 / len(titles)
    for axes, (source, dimensions) in zip(panels, dimensions_of.items(), strict=True):
        places = np.arange(len(dimensions))
        for i, (policy, colour) in enumerate(colours(titles).items()):
            record = metrics["policies"][policy][source]
            mean, se = (
                np.array([record["dimensions"][name][key] for name in dimensions], dtype=np.float64)
                for key in ("mean", "se")
            )
            low, high = np.array([interval(*each, prompts) for each in zip(mean, se, strict=True)]).reshape(-1, 2).T
            total = record["total"]
            axes.bar(
                places - 0.4 + width * (i + 0.5),
                mean,
                width=width * 0.92,
                yerr=np.nan_to_num([mean - low, high - mean]),
                error_kw={"elinewidth": 1.1, "capsize": 2.5},
                color=colour,
                label=f"{titles[policy]} (total {_short(total['mean'])} ± {_short(total['se'])})",
            )
        turned = len(dimensions) > 5
        axes.set_xticks(places, dimensions, rotation=30 if turned else 0, ha="right" if turned else "center")
        axes.axhline(0.0, color="black", linewidth=0.8)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.set_ylabel(f"reward by the {source}")
        axes.set_title(f"{source.capitalize()}: reward by dimension", fontsize=11)
        # Room for the legend above the bars.
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.24 * (high - low))
        axes.legend(fontsize=8, frameon=False, loc="upper left", ncols=1)
    figure.supxlabel("bars: mean over held-out clips; whiskers: 95 % interval of each, prompts as clusters", fontsize=8)
    _plain(figure)
    return figure


def training_curves(logs: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> Figure:
    """Draw training logs by policy: faint as logged, bold as a running mean over a twentieth of the steps."""
    panels = [panel for panel in _PANELS if any(_has(log, panel[0]) for log in logs.values())]
    columns = min(4, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = new_figure(figsize=(3.5 * columns, 2.7 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for axes, (column, title, reference) in zip(grid, panels, strict=False):
        if reference is not None:
            axes.axhline(reference, color="black", linewidth=0.8, alpha=0.6)
        for policy, log in logs.items():
            if not _has(log, column):
                continue
            colour, label = colours(titles)[policy], titles[policy]
            x = log["step"].to_numpy(dtype=np.float64)
            y = log[column].to_numpy(dtype=np.float64)
            if column == "validation_reward":
                judged = np.isfinite(y)
                axes.plot(x[judged], y[judged], color=colour, marker="o", markersize=4, label=label)
                continue
            smooth = running_mean(y, max(1, len(y) // 20))
            if column == "logit_p50" and _has(log, "logit_p10") and _has(log, "logit_p90"):
                low, high = (
                    running_mean(log[name].to_numpy(dtype=np.float64), max(1, len(y) // 20))
                    for name in ("logit_p10", "logit_p90")
                )
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.3)
            axes.plot(x, smooth, color=colour, linewidth=1.8, label=label)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.set_xlabel("step", fontsize=8)
    if panels:
        grid[0].legend(fontsize=8, frameon=False)
    _plain(figure)
    return figure


def running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Return the mean over a centred window of finite values, shorter at the ends."""
    finite = pd.Series(np.where(np.isfinite(values), values, np.nan))
    return finite.rolling(window // 2 * 2 + 1, center=True, min_periods=1).mean().to_numpy()


def deviations_of_policies(deviations: Mapping[str, pd.DataFrame], titles: Mapping[str, str]) -> Figure:
    """Draw deviations from the original by sub-dimension.

    Args:
        deviations: policy -> table of :func:`vr_pipeline.rewards.checklist.deviations.sub_dimension_deviations`.
        titles: of the policies.
    """
    from vr_pipeline.rewards.plots import deviations_by_sub_dimension

    ordered = [policy for policy in titles if policy in deviations]
    return deviations_by_sub_dimension(
        {titles[policy]: deviations[policy] for policy in ordered},
        colours=[colours(titles)[policy] for policy in ordered],
    )


def _has(log: pd.DataFrame, column: str) -> bool:
    return column in log and bool(np.isfinite(log[column].to_numpy(dtype=np.float64)).any())


def _short(value: float | None) -> str:
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.2f}"


def _nothing(reason: str) -> Figure:
    figure = new_figure(figsize=(4.0, 1.2), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, reason, ha="center", va="center", fontsize=9)
    return figure


def _plain(figure: Figure) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
