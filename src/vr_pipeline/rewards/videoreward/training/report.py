"""Agreement of a trained reward with people on held-out pairs, and calibration on validation pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.rewards.training.held_out import HeldOutParameters
from vr_pipeline.rewards.videoreward.calibration import (
    calibrate,
    calibration_error,
    probabilities,
    reliability_table,
    standardised,
    tie_model,
)
from vr_pipeline.rewards.videoreward.settings import TOTAL, Calibration, SeenClips
from vr_pipeline.rewards.videoreward.training.labels import SIGN, LabelledPairs
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.statistics.clustered import bootstrap_by_prompt

WORD = {sign: label for label, sign in SIGN.items()}

REPORT_COLUMNS = [
    "dimension",
    "n",
    "ties",
    "prompts",
    "accuracy_with_ties",
    "accuracy_with_ties_low",
    "accuracy_with_ties_high",
    "accuracy_without_ties",
    "accuracy_without_ties_low",
    "accuracy_without_ties_high",
    "best_accuracy_with_ties",
    "always_tie",
    "log_likelihood",
    "tie_threshold",
    "calibration_error",
]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Held-out pairs with raw scores.

    Attributes:
        names: the dimensions.
        scores: of both clips, [pairs, 2, dimensions].
        labels: by dimension and for 'total': 1, 0, -1 or NaN, [pairs] each.
        units: prompts that must not be split, [pairs].
        clips: clip and prompt of both, [pairs].
    """

    names: tuple[str, ...]
    scores: NDArray[np.float64]
    labels: Mapping[str, NDArray[np.float64]]
    units: Sequence[str]
    clips: Sequence[tuple[tuple[str, str], tuple[str, str]]]

    @classmethod
    def of(cls, pairs: LabelledPairs, rows: NDArray[np.int64], scores: NDArray[np.float64]) -> HeldOut:
        """Return some rows of all pairs, with their scores."""
        table = pairs.table.iloc[rows]
        labels = dict(zip(pairs.names, pairs.label[rows].T, strict=True)) | {TOTAL: pairs.total[rows]}
        clips = [
            ((first, prompt), (second, prompt))
            for first, second, prompt in zip(table["video_id_a"], table["video_id_b"], table["prompt"], strict=True)
        ]
        return cls(pairs.names, scores, labels, table["unit"].tolist(), clips)

    def differences(self, calibration: Calibration) -> dict[str, NDArray[np.float64]]:
        """Return differences of scores by dimension, and of their mean."""
        scores = standardised(self.scores, self.names, calibration)
        apart = scores[:, 0] - scores[:, 1]
        return dict(zip(self.names, apart.T, strict=True)) | {TOTAL: apart.mean(axis=1)}


def figures_by_dimension(
    scores: NDArray[np.float64], label: NDArray[np.float64], names: Sequence[str]
) -> dict[str, float]:
    """Return the share of pairs without tie in correct order by dimension; NaN if there are none.

    Args:
        scores: of both clips, [pairs, 2, dimensions].
        label: 1, 0, -1 or NaN, [pairs, dimensions].
        names: the dimensions.
    """
    right, decided = (scores[:, 0] - scores[:, 1]) * label > 0, np.abs(label) == 1
    with np.errstate(invalid="ignore"):
        shares = (right & decided).sum(axis=0) / decided.sum(axis=0)
    return dict(zip(names, shares.tolist(), strict=True))


def calibrate_on(held_out: HeldOut, *, theta: float, seen: SeenClips) -> Calibration:
    """Choose normalisation, tie thresholds and probabilities on validation pairs; see :func:`~.calibrate`."""
    places: dict[tuple[str, str], int] = {}
    raw = []
    pairs = []
    for row, both in enumerate(held_out.clips):
        for end, clip in enumerate(both):
            if clip not in places:
                places[clip] = len(places)
                raw.append(held_out.scores[row, end])
        pairs.append([places[clip] for clip in both])
    labels = {
        name: [None if math.isnan(value) else WORD[value] for value in values.tolist()]
        for name, values in held_out.labels.items()
    }
    return calibrate(np.array(raw), held_out.names, np.array(pairs), labels, theta=theta, seen=seen)


def report_on(
    held_out: HeldOut, calibration: Calibration, parameters: HeldOutParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Report on pairs that were not used to choose anything.

    Returns:
        one row per dimension and for the total (:class:`vr_pipeline.schemas.PreferenceRewardReport`), and predicted and
        observed probabilities (:class:`vr_pipeline.schemas.PreferenceRewardReliability`).
    """
    rows, tables = [], []
    differences = held_out.differences(calibration)
    for name in (*held_out.names, TOTAL):
        values = held_out.labels[name]
        known = ~np.isnan(values)
        label = np.array([WORD[value] for value in values[known].tolist()], dtype="U3")
        difference = differences[name][known]
        units = np.array(held_out.units, dtype=object)[known].astype(str)
        model = tie_model(calibration, name)
        stated = probabilities(difference, model.theta, model.scale)
        table = reliability_table(stated, label.tolist())
        tables.append(table.assign(dimension=name)[["dimension", *table.columns]])
        rows.append(
            {"dimension": name}
            | _figures(difference, label, calibration.tie_threshold.get(name, 0.0), units, parameters)
            | {"log_likelihood": _log_likelihood(stated, label), "calibration_error": calibration_error(table)}
        )
    return pd.DataFrame(rows, columns=REPORT_COLUMNS), pd.concat(tables, ignore_index=True)


def _figures(
    difference: NDArray[np.float64],
    label: NDArray[np.str_],
    threshold: float,
    units: NDArray[np.str_],
    parameters: HeldOutParameters,
) -> dict[str, object]:
    found = pairwise_accuracy(difference, label, epsilon=threshold)
    drawn = partial(bootstrap_by_prompt, kinds=("share",), samples=parameters.bootstrap_samples, seed=parameters.seed)
    with_ties = drawn(lambda rows: pairwise_accuracy(difference[rows], label[rows], epsilon=threshold).tau, units)
    decided = np.flatnonzero(label != "tie")
    without = drawn(
        lambda rows: pairwise_accuracy(difference[decided[rows]], label[decided[rows]]).diff, units[decided]
    )
    return {
        "n": found.n,
        "ties": found.n_ties,
        "prompts": len(np.unique(units)),
        "accuracy_with_ties": found.tau,
        "accuracy_with_ties_low": float(with_ties[0]),
        "accuracy_with_ties_high": float(with_ties[1]),
        "accuracy_without_ties": found.diff,
        "accuracy_without_ties_low": float(without[0]),
        "accuracy_without_ties_high": float(without[1]),
        "best_accuracy_with_ties": pairwise_accuracy(difference, label).tau,
        "always_tie": found.n_ties / found.n if found.n else math.nan,
        "tie_threshold": threshold,
    }


def _log_likelihood(stated: NDArray[np.float64], label: NDArray[np.str_]) -> float:
    """Return the mean log probability of human labels; NaN without pairs."""
    if not len(label):
        return math.nan
    column = np.array([{"a": 0, "tie": 1, "b": 2}[one] for one in label.tolist()])
    chances = stated[np.arange(len(label)), column]
    return float(np.log(np.maximum(chances, 1e-12)).mean())
