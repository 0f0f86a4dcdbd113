"""Plots of the training of a vision-language model."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from vr_pipeline.drawing import Axes, Figure, new_figure
from vr_pipeline.rewards.plots import COLOURS, SMOOTHED

_TITLES = {"exact": "exact match", "drawn_exact": "exact match, drawn", "points": "points of the judge"}


def vlm_dpo_figure(metrics: Mapping[str, Any], log: pd.DataFrame) -> Figure:
    """Plot held-out figures before and after with intervals, the margin during training, and log-ratios.

    Args:
        metrics: of :func:`~vr_pipeline.understanding.evaluation.summarised`.
        log: one row per step.
    """
    shown = [name for name in _TITLES if name in metrics]
    figure = new_figure(figsize=(3.2 * len(shown) + 8.4, 3.8), layout="constrained")
    axes = figure.subplots(1, len(shown) + 2, width_ratios=[*[1] * len(shown), 1.4, 1.4])
    for name, one in zip(shown, axes, strict=False):
        _before_and_after(one, metrics[name], _TITLES[name])
    _margin(axes[-2], log)
    _ratios(axes[-1], log)
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure


def _before_and_after(axes: Axes, figures: Mapping[str, Any], title: str) -> None:
    for place, name in enumerate(("before", "after")):
        mean, low, high = (figures[name][key] for key in ("mean", "ci_low", "ci_high"))
        axes.bar(place, mean, width=0.6, color=COLOURS[place])
        if low is not None:
            axes.vlines(place, low, high, color="black", linewidth=1.2)
    gain = figures["gain"]
    between = f" [{gain['ci_low']:.3g}, {gain['ci_high']:.3g}]" if gain["ci_low"] is not None else ""
    axes.set(xticks=[0, 1], xticklabels=["before", "after"], title=title)
    axes.set_xlabel(f"gain {gain['mean']:+.3g}{between}\n{figures['before']['n']} held-out questions", fontsize=8)


def _margin(axes: Axes, log: pd.DataFrame) -> None:
    axes.axhline(0, color="0.4", linewidth=1, linestyle=":")
    _smoothed(axes, log, "margin", COLOURS[0], "training")
    if "validation_margin" in log and log["validation_margin"].notna().any():
        judged = log[log["validation_margin"].notna()]
        axes.plot(judged["step"], judged["validation_margin"], "o-", markersize=3, color=COLOURS[5], label="validation")
    axes.set(xlabel="step", title="Margin of chosen over rejected")
    axes.legend(fontsize=8, frameon=False)


def _ratios(axes: Axes, log: pd.DataFrame) -> None:
    axes.axhline(0, color="0.4", linewidth=1, linestyle=":")
    for place, name in enumerate(("chosen", "rejected")):
        _smoothed(axes, log, f"{name}_log_ratio", COLOURS[2 * place + 1], name)
    axes.set(xlabel="step", title="Log-probability against the start")
    axes.legend(fontsize=8, frameon=False)


def _smoothed(axes: Axes, log: pd.DataFrame, column: str, colour: str, label: str) -> None:
    values = log[column].rolling(SMOOTHED, min_periods=1).mean()
    axes.plot(log["step"], values, color=colour, label=label)
