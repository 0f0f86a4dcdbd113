"""Plots of a latent reward's accuracy."""

import pandas as pd

from vr_pipeline.drawing import Axes, Figure, new_figure
from vr_pipeline.rewards.plots import COLOURS, training_course
from vr_pipeline.rewards.videoreward.training.plots import PAIR_ACCURACY, PAIR_LOSSES
from vr_pipeline.training.latent_reward.report import ALL


def latent_reward_figure(report: pd.DataFrame, log: pd.DataFrame) -> Figure:
    """Draw accuracy by noise level with intervals, one line per dimension, and the training curve.

    Args:
        report: of :func:`~vr_pipeline.training.latent_reward.report.report_by_noise`.
        log: one row per step.
    """
    figure = new_figure(figsize=(11.5, 4.4), layout="constrained")
    accuracy, training = figure.subplots(1, 2, width_ratios=(1.4, 1))
    _accuracy(accuracy, report)
    training_course(training, log, PAIR_LOSSES, per="label", accuracy=PAIR_ACCURACY)
    for axes in figure.axes:
        axes.spines["top"].set_visible(False)
    return figure


def _accuracy(axes: Axes, report: pd.DataFrame) -> None:
    names = [name for name in dict.fromkeys(report["dimension"]) if name != ALL]
    for at, name in enumerate(names):
        part = report[(report["dimension"] == name) & report["accuracy"].notna()]
        # Side by side, so that intervals do not overlap.
        middle = (part["time_from"] + part["time_to"]) / 2 + 0.008 * (at - (len(names) - 1) / 2)
        colour = COLOURS[at % len(COLOURS)]
        axes.plot(middle, part["accuracy"], "o-", color=colour, markersize=4, linewidth=1.2, label=name)
        axes.vlines(middle, part["accuracy_low"], part["accuracy_high"], color=colour, linewidth=1)
        axes.plot(middle, part["accuracy_apart"], "s--", color=colour, markersize=3, linewidth=0.9)
    axes.plot([], [], "k-o", markersize=4, label="one noise for both clips, as in training")
    axes.plot([], [], "k--s", markersize=3, label="a noise for each clip")
    axes.axhline(0.5, color="0.4", linewidth=1, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0.3, 1), xlabel="time, from the clip (0) to noise alone (1)")
    axes.set_ylabel("accuracy, 95 % interval by prompt")
    axes.set_title("Held-out pairs that are no ties, by noise level")
    axes.legend(fontsize=8, frameon=False, loc="lower left", ncols=2)
