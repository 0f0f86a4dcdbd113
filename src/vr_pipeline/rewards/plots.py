"""Figures of rewards: each function turns tables into a figure, without global state."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.drawing import Axes, Figure, new_figure
from vr_pipeline.rewards.checklist.curves import answer_correlation, calibration
from vr_pipeline.rewards.checklist.weights import RewardWeights

# Okabe and Ito's palette, distinguishable with the common colour vision deficiencies.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#6B6ECF", "#555555")
_GREY = "#9A9A9A"

SMOOTHED = 15
"""Steps over which losses of a training are averaged."""


def weights_by_dimension(weights: RewardWeights, checklist: Checklist) -> Figure:
    """Draw weights with 95 % intervals, grouped by dimension; removed questions in grey at 0."""
    place = {question: i for i, question in enumerate(weights.question_ids)}
    questions = [question for question in checklist.questions if question.question_id in place]
    figure = new_figure(
        figsize=(8.0, 1.4 + 0.24 * len(questions) + 0.12 * len(checklist.dimensions)), layout="constrained"
    )
    axes = figure.add_subplot()
    assert weights.removed is not None
    assert weights.ci_low is not None
    assert weights.ci_high is not None
    ticks, labels, y = [], [], 0.0
    previous = None
    for question in questions:
        if previous is not None and question.dimension != previous:
            y += 0.6
        previous = question.dimension
        i = place[question.question_id]
        colour = _GREY if weights.removed[i] else COLOURS[checklist.dimensions.index(question.dimension) % len(COLOURS)]
        if np.isfinite(weights.ci_low[i]):
            axes.plot([weights.ci_low[i], weights.ci_high[i]], [y, y], color=colour, linewidth=1.6, zorder=2)
        axes.scatter([weights.weights[i]], [y], color=colour, s=28, marker="x" if weights.removed[i] else "o", zorder=3)
        ticks.append(y)
        labels.append(question.question_id)
        y += 1.0
    for i, name in enumerate(checklist.dimensions):
        axes.scatter([], [], color=COLOURS[i % len(COLOURS)], s=28, label=name)
    if weights.removed.any():
        axes.scatter([], [], color=_GREY, s=28, marker="x", label="removed")
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_ylim(y - 0.4, -0.6)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("weight (log odds per yes), 95 % interval by prompt")
    axes.set_title(f"Weights: {len(weights.kept)} of {len(weights.question_ids)} questions kept")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    _plain(figure)
    return figure


def preference_calibration(
    difference: npt.ArrayLike,
    preference: Sequence[str] | npt.ArrayLike,
    *,
    prompts: Sequence[str] | npt.ArrayLike | None = None,
    bins: int = 10,
) -> Figure:
    """Draw :func:`vr_pipeline.rewards.checklist.curves.calibration`."""
    curve, loss = calibration(difference, preference, prompts, bins)
    figure = new_figure(figsize=(5.4, 5.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="perfect")
    number = np.size(difference)
    if len(curve):
        predicted, observed, low, high = curve.to_numpy(dtype=np.float64).T
        axes.errorbar(
            predicted,
            observed,
            yerr=[observed - low, high - observed],
            fmt="o-",
            color=COLOURS[0],
            capsize=2,
            label="held-out pairs, 95 % intervals",
        )
        axes.set_title(f"Calibration on {number} held-out pairs (Brier {loss:.3f})")
    else:
        axes.set_title("Calibration: no held-out pairs without ties")
    axes.set_xlabel("predicted probability that a clip is preferred")
    axes.set_ylabel("share of people who preferred it")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False)
    _plain(figure)
    return figure


def accuracy_by_questions(curve: pd.DataFrame) -> Figure:
    """Draw held-out accuracy by number of questions, one panel per kind of answers, one line per weighting."""
    kinds = list(dict.fromkeys(curve["answers"])) if "answers" in curve.columns else ["answers"]
    figure = new_figure(figsize=(4.6 * len(kinds), 4.0), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    names = {
        "learned": "weights of the full fit",
        "refitted": "weights fitted with these only",
        "equal": "equal weights",
    }
    for axes, kind in zip(panels, kinds, strict=True):
        part = curve[curve["answers"] == kind] if "answers" in curve.columns else curve
        for i, weighting in enumerate(dict.fromkeys(part["weighting"])):
            line = part[part["weighting"] == weighting].sort_values("n_questions", kind="stable")
            columns = ["n_questions", "diff", "ci_low", "ci_high"]
            x, y, low, high = line.reindex(columns=columns).to_numpy(dtype=np.float64).T
            axes.plot(x, y, "o-", markersize=3, color=COLOURS[i], label=names.get(weighting, weighting))
            if weighting == "learned":
                axes.fill_between(x, low, high, color=COLOURS[i], alpha=0.12, linewidth=0)
        axes.set_title(f"{kind} answers")
        axes.set_xlabel("questions kept, most important first")
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[0].set_ylabel("accuracy on held-out pairs without ties")
    panels[0].legend(fontsize=8, loc="lower right", frameon=False)
    _plain(figure)
    return figure


def question_correlation(answers: npt.ArrayLike, checklist: Checklist) -> Figure:
    """Draw the correlation of answers [clips, questions] (NaN where gated, counts 0), with lines between dimensions."""
    correlation = answer_correlation(answers)
    n = correlation.shape[0]
    side = 3.2 + 0.19 * n
    figure = new_figure(figsize=(side + 0.9, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(correlation, cmap="RdBu_r", vmin=-1, vmax=1)
    names = checklist.question_ids
    size = 8 if n <= 30 else 6
    axes.set_xticks(range(n), names, rotation=90, fontsize=size)
    axes.set_yticks(range(n), names, fontsize=size)
    dimensions = [question.dimension for question in checklist.questions]
    for i in range(1, n):
        if dimensions[i] != dimensions[i - 1]:
            axes.axhline(i - 0.5, color="black", linewidth=0.8)
            axes.axvline(i - 0.5, color="black", linewidth=0.8)
    figure.colorbar(image, ax=axes, shrink=0.7, label="correlation over clips")
    axes.set_title(f"Answers on {len(np.asarray(answers))} clips")
    return figure


def deviations_by_sub_dimension(deviations: Mapping[str, pd.DataFrame], *, colours: Sequence[str] = COLOURS) -> Figure:
    """Draw deviations of the share of yes by sub-dimension, one colour per comparison.

    Args:
        deviations: name of the comparison -> table of
            :func:`vr_pipeline.rewards.checklist.deviations.sub_dimension_deviations`; the same sub-dimensions in each.
        colours: one per comparison.
    """
    tables = list(deviations.values())
    labels = list(tables[0]["sub_dimension"])
    dimensions = list(tables[0]["dimension"])
    height = 0.8 / len(tables)
    figure = new_figure(figsize=(8.0, 1.4 + (0.2 + 0.14 * len(tables)) * max(len(labels), 3)), layout="constrained")
    axes = figure.add_subplot()
    for k, (name, table) in enumerate(deviations.items()):
        by_name = table.set_index("sub_dimension").reindex(labels)
        y = np.arange(len(labels)) - 0.4 + height * (k + 0.5)
        middle = by_name["deviation"].to_numpy(dtype=np.float64)
        low, high = by_name["ci_low"].to_numpy(dtype=np.float64), by_name["ci_high"].to_numpy(dtype=np.float64)
        axes.barh(y, middle, height=height * 0.9, color=colours[k % len(colours)], alpha=0.8, label=name)
        axes.hlines(y, low, high, color="black", linewidth=1.0)
    for i in range(1, len(labels)):
        if dimensions[i] != dimensions[i - 1]:
            axes.axhline(i - 0.5, color="black", linewidth=0.5, alpha=0.4)
    axes.set_yticks(
        range(len(labels)),
        [
            f"{dimension}: {label}" if label != dimension else label
            for dimension, label in zip(dimensions, labels, strict=True)
        ],
        fontsize=8,
    )
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("difference of the share of yes; simultaneous 95 % intervals by prompt")
    if len(tables) > 1:
        axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        axes.set_title(next(iter(deviations)))
    _plain(figure)
    return figure


def training_course(axes: Axes, log: pd.DataFrame, losses: Mapping[str, str], *, per: str, accuracy: str) -> None:
    """Draw losses, averaged over :data:`SMOOTHED` steps, and the validation of a training.

    Args:
        log: one row per step.
        losses: columns of training losses and their labels.
        per: unit of the loss.
        accuracy: label of the validation accuracy.
    """
    for at, (name, label) in enumerate(losses.items()):
        if name in log:
            axes.plot(log["step"], log[name].rolling(SMOOTHED, min_periods=1).mean(), color=COLOURS[at], label=label)
    if "validation_loss" in log:
        judged = log[log["validation_loss"].notna()]
        axes.plot(judged["step"], judged["validation_loss"], "o-", markersize=3, color=COLOURS[5], label="validation")
    axes.set(xlabel="step", ylabel=f"loss per {per}", title="Training", ylim=(0, None))
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    if "validation_accuracy" in log:
        judged = log[log["validation_accuracy"].notna()]
        twin = axes.twinx()
        twin.plot(judged["step"], judged["validation_accuracy"], "s--", markersize=3, color=COLOURS[2])
        twin.set(ylim=(0.4, 1))
        twin.set_ylabel(accuracy, color=COLOURS[2])


def _plain(figure: Figure) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
