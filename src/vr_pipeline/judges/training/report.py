"""How well a trained judge answers, question by question and by source of the clips."""

import json
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.judges.training.examples import JudgeExample, labels_matrix


def report_by_source(
    p_yes: NDArray[np.float64], examples: Sequence[JudgeExample], question_ids: Sequence[str]
) -> pd.DataFrame:
    """Report on the questions about the clips of each source: :func:`question_report` with a column source.

    Args:
        p_yes: [examples, questions].
    """
    labels = labels_matrix(examples, question_ids)
    sources = np.array([example.source for example in examples])
    reports = []
    for source in sorted(set(sources)):
        rows = sources == source
        part = question_report(p_yes[rows], labels[rows], question_ids)
        part.insert(0, "source", source)
        reports.append(part)
    return pd.concat(reports, ignore_index=True)


def figures_by_source(report: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return mean accuracies of each source, and its lowest balanced accuracy of a question."""
    return {
        str(source or "all"): {
            "accuracy": float(part["accuracy"].mean()),
            "balanced_accuracy": float(part["balanced_accuracy"].mean()),
            "lowest_balanced_accuracy": float(part["balanced_accuracy"].min()),
        }
        for source, part in report.groupby("source")
    }


def question_report(
    p_yes: NDArray[np.float64], labels: NDArray[np.float64], question_ids: Sequence[str], *, bins: int = 10
) -> pd.DataFrame:
    """Report how well each question is answered.

    Args:
        p_yes: [examples, questions].
        labels: [examples, questions], 1 yes, 0 no, NaN unknown.

    Returns:
        question_id, n, positives (share of yes), accuracy, balanced_accuracy (mean of the accuracies on yes and on no;
        of the one kind where only one occurs), calibration_error (expected, equal-width bins), calibration (the curve:
        mean p_yes, share of yes and n of each bin that is not empty, as JSON).
    """
    rows = []
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    for at, question in enumerate(question_ids):
        known = ~np.isnan(labels[:, at])
        truth, probability = labels[known, at] > 0.5, p_yes[known, at]
        said = probability > 0.5
        kinds = [float((said == truth)[truth == kind].mean()) for kind in (True, False) if (truth == kind).any()]
        curve, error = [], 0.0
        where = np.digitize(probability, edges)
        for number in range(bins):
            inside = where == number
            if inside.any():
                mean, share = float(probability[inside].mean()), float(truth[inside].mean())
                curve.append([round(mean, 4), round(share, 4), int(inside.sum())])
                error += abs(mean - share) * float(inside.mean())
        rows.append(
            {
                "question_id": question,
                "n": int(known.sum()),
                "positives": float(truth.mean()) if len(truth) else math.nan,
                "accuracy": float((said == truth).mean()) if len(truth) else math.nan,
                "balanced_accuracy": float(np.mean(kinds)) if kinds else math.nan,
                "calibration_error": error if len(truth) else math.nan,
                "calibration": json.dumps(curve),
            }
        )
    return pd.DataFrame(rows)
