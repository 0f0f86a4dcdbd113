"""Figures of the agreement of a trained UnifiedReward with people."""

import numpy as np
import pandas as pd

from vr_pipeline.drawing import Axes, Figure, new_figure
from vr_pipeline.rewards.plots import COLOURS, training_course
from vr_pipeline.rewards.unifiedreward.training.report import WHOLE


def unified_reward_figure(report: pd.DataFrame, log: pd.DataFrame) -> Figure:
    """Draw accuracy by task with constant answers, the effect of order, and the course of training.

    Args:
        report: of :func:`~vr_pipeline.rewards.unifiedreward.training.report.report_on`.
        log: one row per step.
    """
    figure = new_figure(figsize=(14, 4.4), layout="constrained")
    accuracy, order, training = figure.subplots(1, 3)
    _accuracy(accuracy, report[report["dimension"] == WHOLE])
    _order(order, report[report["form"] == "pair"])
    losses = {"pair_loss": "pair loss", "point_loss": "point loss"}
    training_course(training, log, losses, per="item", accuracy="validation: share in correct order")
    for axes in figure.axes:
        axes.spines["top"].set_visible(False)
    return figure


def _accuracy(axes: Axes, report: pd.DataFrame) -> None:
    places = np.arange(len(report))
    figures = (
        ("diff", "correct order, without ties"),
        ("three_way_accuracy", "correct answer of three"),
        ("tau", "all pairs, ties by threshold"),
    )
    for at, (name, title) in enumerate(figures):
        value, low, high = (report[f"{name}{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
        y = places + (at - 1) * 0.26
        axes.barh(y, np.nan_to_num(value), height=0.24, color=COLOURS[at], label=title)
        axes.hlines(y, low, high, color="black", linewidth=1.2)
    for name, mark in (("always_first", "|"), ("always_tie", "x")):
        always = report[name].to_numpy(dtype=float)
        axes.plot(always, places, mark, color="black", markersize=9, label=name.replace("_", " "))
    labels = [f"{str(row.task).replace('_', ' ')}, {row.form} ({row.n})" for row in report.itertuples()]
    axes.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    axes.set(xlim=(0, 1), yticks=places, yticklabels=labels, xlabel="share of items, 95 % interval by prompt")
    axes.set_title("Agreement with people")
    axes.invert_yaxis()
    axes.legend(fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=2)


def _order(axes: Axes, report: pd.DataFrame) -> None:
    places = np.arange(len(report))
    for at, (name, title) in enumerate(
        (("one_order_diff", "one order"), ("diff", "both orders averaged"), ("order_flips", "answers that change"))
    ):
        axes.bar(places + (at - 1) * 0.26, report[name], width=0.24, color=COLOURS[at], label=title)
    axes.set(ylim=(0, 1), ylabel="share of pairs", title="Order within a pair", xticks=places)
    axes.set_xticklabels([task.replace("_", "\n") for task in report["task"]])
    axes.legend(fontsize=8, frameon=False, loc="upper right")
