"""Figures of the agreement of a trained reward with people."""

import numpy as np
import pandas as pd

from vr_pipeline.drawing import Axes, Figure, new_figure
from vr_pipeline.rewards.plots import COLOURS, SMOOTHED, training_course

PAIR_LOSSES = {"loss": f"training (mean of {SMOOTHED} steps)"}
PAIR_ACCURACY = "validation accuracy without ties"


def preference_reward_figure(report: pd.DataFrame, reliability: pd.DataFrame, log: pd.DataFrame) -> Figure:
    """Draw accuracy by dimension with intervals, predicted and observed probabilities, and the course of training.

    Args:
        report: of :func:`~vr_pipeline.rewards.videoreward.training.report.report_on`.
        reliability: of the same function.
        log: one row per step.
    """
    figure = new_figure(figsize=(13.5, 4.4), layout="constrained")
    accuracy, calibration, training = figure.subplots(1, 3)
    _accuracy(accuracy, report)
    _reliability(calibration, reliability)
    training_course(training, log, PAIR_LOSSES, per="label", accuracy=PAIR_ACCURACY)
    for axes in figure.axes:
        axes.spines["top"].set_visible(False)
    return figure


def _accuracy(axes: Axes, report: pd.DataFrame) -> None:
    places = np.arange(len(report))
    for at, (name, title) in enumerate(
        (("accuracy_without_ties", "pairs without ties"), ("accuracy_with_ties", "all pairs, ties by threshold"))
    ):
        value, low, high = (report[f"{name}{end}"].to_numpy(dtype=float) for end in ("", "_low", "_high"))
        y = places + (at - 0.5) * 0.36
        axes.barh(y, value, height=0.34, color=COLOURS[at], label=title)
        axes.hlines(y, low, high, color="black", linewidth=1.2)
    always = report["always_tie"].to_numpy(dtype=float)
    axes.plot(always, places + 0.18, "|", color="black", markersize=13, label='always "tie"')
    axes.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    labels = [f"{row.dimension} ({row.n})" for row in report.itertuples()]
    axes.set(xlim=(0, 1), yticks=places, yticklabels=labels, xlabel="accuracy, 95 % interval by prompt")
    axes.set_title("Agreement with people (pairs)")
    axes.invert_yaxis()
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)


def _reliability(axes: Axes, table: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle=":")
    for at, name in enumerate(dict.fromkeys(table["dimension"])):
        for outcome, marker, style in (("better", "o", "-"), ("tie", "s", "--")):
            part = table[(table["dimension"] == name) & (table["outcome"] == outcome)]
            colour = COLOURS[at % len(COLOURS)]
            label = name if outcome == "better" else None
            axes.plot(part["stated"], part["observed"], style, color=colour, linewidth=0.9, label=label)
            axes.scatter(
                part["stated"],
                part["observed"],
                s=6 + 60 * part["n"] / max(table["n"].max(), 1),
                marker=marker,
                color=colour,
                alpha=0.8,
            )
    axes.plot([], [], "k-o", markersize=4, label="a clip is better")
    axes.plot([], [], "k--s", markersize=4, label="tie")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="share of pairs", title="Reliability")
    axes.legend(fontsize=8, frameon=False, loc="upper left")
