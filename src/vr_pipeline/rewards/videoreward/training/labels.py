"""Human labels of pairs of clips by dimension, and their split."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.preferences.criteria import GRADES, OVERALL, aggregate_criterion, aggregate_grades, label_column
from vr_pipeline.preferences.labels import aggregate_annotators, check_preferences, usable_pairs
from vr_pipeline.rewards.training.held_out import SPLITS, HeldOutParameters, kept_together, split_by_unit
from vr_pipeline.rewards.videoreward.settings import TOTAL, DimensionSettings

logger = logging.getLogger(__name__)

SIGN = {"a": 1.0, "tie": 0.0, "b": -1.0}
"""Labels as numbers; NaN is a masked one."""


class LabelParameters(Protocol):
    """Parameters that determine labels."""

    @property
    def block(self) -> str:
        """Name of the parameters, for messages."""

    @property
    def loss(self) -> str:
        """One of :data:`vr_pipeline.rewards.videoreward.losses.LOSSES`."""

    @property
    def keep_ties(self) -> bool:
        """Whether to train on pairs that are tied in every dimension."""

    @property
    def grade_range(self) -> tuple[float, float]:
        """Lowest and highest possible grade."""

    @property
    def held_out(self) -> HeldOutParameters:
        """Held-out pairs."""


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Pairs of clips with all human labels.

    Attributes:
        table: pair_id, prompt_id, prompt, video_id_a, video_id_b, split and unit (prompts that must not be split), one
            row per pair, sorted by pair_id.
        names: the dimensions.
        label: by dimension: 1 (a), 0 (tie), -1 (b), NaN (masked), [pairs, dimensions].
        total: the overall label, likewise, [pairs].
        grades: of both clips, NaN if missing, [pairs, 2, dimensions].
        left_out: unusable pairs, with the reason.
    """

    table: pd.DataFrame
    names: tuple[str, ...]
    label: NDArray[np.float64]
    total: NDArray[np.float64]
    grades: NDArray[np.float64]
    left_out: pd.DataFrame

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of one side of the split."""
        return np.flatnonzero(self.table["split"] == split)

    def clips(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the clips of some pairs, sorted."""
        part = self.table.iloc[rows]
        return sorted({*part["video_id_a"], *part["video_id_b"]})

    def contents(self, rows: NDArray[np.int64]) -> list[str]:
        """Return hashes of everything in pairs that training uses."""
        numbers = np.column_stack([self.label, self.grades.reshape(len(self.grades), -1), self.total])
        columns = ["pair_id", "prompt", "video_id_a", "video_id_b", "split"]
        texts = self.table[columns].itertuples(index=False, name=None)
        hashes = [content_hash(*text, repr(row.tolist())) for text, row in zip(texts, numbers, strict=True)]
        return [hashes[row] for row in rows]

    def counts(self) -> dict[str, Any]:
        """Return numbers of pairs, prompts and labels of each side, and of clips that are also trained on."""
        found: dict[str, Any] = {}
        trained = set(self.clips(self.rows("train")))
        for split in SPLITS:
            rows = self.rows(split)
            labels = {
                name: _count_labels(values[rows])
                for name, values in zip((*self.names, TOTAL), (*self.label.T, self.total), strict=True)
            }
            clips = self.clips(rows)
            shared = {} if split == "train" else {"clips_trained_on": len(trained & set(clips))}
            prompts = int(self.table["prompt_id"].iloc[rows].nunique())
            found[split] = {"pairs": len(rows), "prompts": prompts, "clips": len(clips), **shared, "labels": labels}
        return found


def _count_labels(values: NDArray[np.float64]) -> dict[str, int]:
    return {name: int((values == sign).sum()) for name, sign in SIGN.items()} | {"masked": int(np.isnan(values).sum())}


def label_pairs(
    preferences: pd.DataFrame,
    video_index: pd.DataFrame,
    dimensions: Sequence[DimensionSettings],
    parameters: LabelParameters,
) -> LabelledPairs:
    """Combine the labels of all annotators, and split the pairs.

    The labels of a dimension are the column ``preference_<criterion>``, or the order of two grades without it. Several
    annotators count by majority, their grades by mean.

    Args:
        preferences: table of :class:`vr_pipeline.schemas.HumanPreferences`.
        video_index: their clips.
        dimensions: the trained dimensions.
        parameters: the loss, which determines the required labels, and the split.

    Raises:
        InputError: a clip is unknown or compared with itself, a criterion or grade is unknown, a dimension has no
            labels for the loss, or a side of the split has no pairs or no labels.
    """
    check_preferences(preferences, video_index)
    everything = aggregate_annotators(preferences)
    pairs, left_out = usable_pairs(everything, video_index)
    if not len(pairs):
        raise InputError(
            f"none of the {len(everything)} pairs has two readable clips; the first reason: "
            f"{left_out['reason'].iloc[0]}",
            remedy="Correct this, then run again",
            file="human_preferences",
        )
    if len(left_out):
        logger.warning(
            "%d of %d pairs are ignored because a clip cannot be read; the first reason: %s",
            len(left_out),
            len(everything),
            left_out["reason"].iloc[0],
        )
    label, grades = np.full((len(pairs), len(dimensions)), np.nan), np.full((len(pairs), 2, len(dimensions)), np.nan)
    for at, dimension in enumerate(dimensions):
        label[:, at], grades[:, :, at] = _labels(preferences, pairs["pair_id"], dimension, parameters)
    table = pairs[["pair_id", "prompt_id", "prompt", "video_id_a", "video_id_b"]].copy()
    table["unit"] = kept_together(table["prompt_id"], table["video_id_a"], table["video_id_b"])
    table["split"] = split_by_unit(table["unit"], parameters.held_out)
    total = _signs(pairs["preference"])
    found = LabelledPairs(table, tuple(one.name for one in dimensions), label, total, grades, left_out)
    _check(found, dimensions, parameters)
    return found


def trainable(pairs: LabelledPairs, parameters: LabelParameters) -> NDArray[np.int64]:
    """Return the training rows with labels that the loss uses."""
    usable = learned_from(pairs.label, parameters, pairs.grades)
    return np.flatnonzero(usable & (pairs.table["split"] == "train").to_numpy())


def learned_from(
    label: NDArray[np.float64], parameters: LabelParameters, grades: NDArray[np.float64] | None = None
) -> NDArray[np.bool_]:
    """Return which pairs have labels that the loss uses, [pairs].

    Args:
        label: 1, 0, -1 or NaN, [pairs, dimensions].
        parameters: the loss, and whether pairs that are tied in every dimension are used.
        grades: of both clips, NaN if missing, [pairs, 2, dimensions]; for the loss regression.
    """
    usable = _learned_from(label, grades, parameters.loss).any(axis=1)
    if not parameters.keep_ties:
        known = ~np.isnan(label)
        usable &= ~(known.any(axis=1) & ((label == 0) | ~known).all(axis=1))
    return np.asarray(usable)


def _labels(
    preferences: pd.DataFrame,
    pair_ids: pd.Series,
    dimension: DimensionSettings,
    parameters: LabelParameters,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a dimension's labels [pairs] and grades [pairs, 2], NaN if missing."""
    criterion = dimension.labelled_by
    has_labels = label_column(criterion) in preferences.columns
    has_grades = any(f"{prefix}{criterion}" in preferences.columns for prefix in GRADES.values())
    label: NDArray[np.float64] = np.full(len(pair_ids), np.nan)
    grades: NDArray[np.float64] = np.full((len(pair_ids), 2), np.nan)
    if has_grades:
        _check_grades(preferences, criterion, parameters)
        table = aggregate_grades(preferences, criterion).set_index("pair_id").reindex(pair_ids)
        grades = table[["grade_a", "grade_b"]].to_numpy(dtype=np.float64)
    elif parameters.loss == "regression":
        if criterion == OVERALL:
            raise InputError(
                f"dimension '{dimension.name}' uses the overall preference, which has no grades for regression",
                remedy="Set its criterion to one with grades, or set loss to btt",
                field=f"{parameters.block}.loss",
            )
        aggregate_grades(preferences, criterion)  # Raises an error with the known criteria.
    if has_labels or not has_grades:
        table = aggregate_criterion(preferences, criterion).set_index("pair_id").reindex(pair_ids)
        label = _signs(table["preference"])
    else:
        label = np.sign(grades[:, 0] - grades[:, 1])
    return label, grades


def _signs(labels: pd.Series) -> NDArray[np.float64]:
    return np.array([SIGN.get(str(label), np.nan) for label in labels], dtype=np.float64)


def _check_grades(preferences: pd.DataFrame, criterion: str, parameters: LabelParameters) -> None:
    low, high = parameters.grade_range
    for column in (f"{prefix}{criterion}" for prefix in GRADES.values()):
        if column not in preferences.columns:
            continue
        values = pd.to_numeric(preferences[column]).to_numpy(dtype=np.float64)
        wrong = (values < low) | (values > high)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"the grade {values[row]:g} is not between {low:g} and {high:g}",
                remedy="Correct it, or set grade_range to the scale of the grades",
                file="human_preferences",
                row=row + 2,
                field=column,
            )


def _learned_from(label: NDArray[np.float64], grades: NDArray[np.float64] | None, loss: str) -> NDArray[np.bool_]:
    """Return which pairs have labels that the loss uses in a dimension, [pairs, dimensions]."""
    if loss == "regression":
        assert grades is not None
        return np.asarray((~np.isnan(grades)).any(axis=1))
    return np.asarray(np.abs(label) == 1 if loss == "bt" else ~np.isnan(label))


def _check(pairs: LabelledPairs, dimensions: Sequence[DimensionSettings], parameters: LabelParameters) -> None:
    """Raise an error if a dimension cannot be learned, or checkpoints cannot be compared."""
    learned, train = _learned_from(pairs.label, pairs.grades, parameters.loss), pairs.rows("train")
    for at, dimension in enumerate(dimensions):
        criterion, values = dimension.labelled_by, pairs.label[:, at]
        what = "grade" if parameters.loss == "regression" else "label"
        field = f"grade_a_{criterion}" if what == "grade" else label_column(criterion)
        if learned[train, at].any():
            continue
        if parameters.loss == "bt" and not learned[:, at].any() and (values == 0).any():
            raise InputError(
                f"all {int((values == 0).sum())} labels of dimension '{dimension.name}' are ties, which the loss bt "
                "ignores",
                remedy="Give labels that are not ties, or set loss to btt",
                file="human_preferences",
                field=field,
            )
        where = " on the training side of the split" if learned[:, at].any() else ""
        raise InputError(
            f"dimension '{dimension.name}' has no usable {what}{where}",
            remedy=f"Give {what}s of the criterion '{criterion}'{' for more prompts' if where else ''}, or remove the "
            "dimension from 'network'",
            file="human_preferences",
            field=field,
        )
    decided = np.abs(pairs.label) == 1
    if decided[pairs.rows("validation")].any():
        return
    if decided.any() or parameters.loss != "btt":
        raise InputError(
            f"all labels of the {len(pairs.rows('validation'))} validation pairs are ties, so accuracy cannot choose a "
            "checkpoint",
            remedy="Raise validation_share, or give labels for more prompts",
            file="human_preferences",
            field=f"{parameters.block}.held_out.validation_share",
        )
    logger.warning(
        "All labels are ties: the reward cannot learn which clip is better, and checkpoints are chosen by likelihood."
    )
