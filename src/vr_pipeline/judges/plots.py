"""Pictures of how well a judge answers."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from vr_pipeline.drawing import Figure, new_figure


def judge_report_figure(report: pd.DataFrame, log: pd.DataFrame) -> Figure:
    """Plot balanced accuracy by question and source, the calibration over all questions, and the training loss.

    Args:
        report: source, question_id, balanced_accuracy, calibration (see :mod:`vr_pipeline.judges.training.report`).
        log: step, answer_loss, balanced_accuracy.
    """
    sources = list(dict.fromkeys(report["source"]))
    questions = list(dict.fromkeys(report["question_id"]))
    figure = new_figure(figsize=(12, max(4.0, 1.6 + 0.27 * len(questions))), layout="constrained")
    bars, calibration, loss = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    places = np.arange(len(questions))
    height = 0.8 / len(sources)
    for number, source in enumerate(sources):
        part = report[report["source"] == source].set_index("question_id")["balanced_accuracy"].reindex(questions)
        whole = f"{part.mean():.3f}" if part.notna().any() else "no labels"
        label = f"{source or 'held out'}: {whole}"
        bars.barh(places + (number - (len(sources) - 1) / 2) * height, part, height=height, label=label)
    bars.axvline(0.5, color="0.4", linewidth=1, linestyle=":")
    bars.set(
        xlim=(0, 1), yticks=places, yticklabels=questions, xlabel="balanced accuracy (chance 0.5)", title="By question"
    )
    bars.invert_yaxis()
    bars.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False, title="mean of each source")
    for source in sources:
        curves = [point for text in report[report["source"] == source]["calibration"] for point in json.loads(text)]
        if not curves:
            continue
        points = np.array(curves)
        where = np.minimum((points[:, 0] * 10).astype(int), 9)
        kept = [at for at in range(10) if (where == at).any()]
        mean = [np.average(points[where == at, 0], weights=points[where == at, 2]) for at in kept]
        share = [np.average(points[where == at, 1], weights=points[where == at, 2]) for at in kept]
        calibration.plot(mean, share, marker="o", label=source or "held out")
    calibration.plot([0, 1], [0, 1], color="0.4", linewidth=1, linestyle=":")
    calibration.set(xlabel="probability of yes", ylabel="share of yes", title="Calibration, all questions")
    smooth = log["answer_loss"].rolling(25, min_periods=1).mean()
    loss.plot(log["step"], smooth, color="C0", label="loss on answers")
    loss.set(xlabel="step", ylabel="cross entropy (mean of 25 steps)", title="Training", ylim=(0, None))
    validated = log[log["balanced_accuracy"].notna()]
    twin = loss.twinx()
    twin.plot(validated["step"], validated["balanced_accuracy"], color="C1", marker="o")
    twin.set(ylim=(0.4, 1))
    twin.set_ylabel("validation balanced accuracy", color="C1")
    return figure
