"""What people said of pairs of clips, dimension by dimension, and on which side of the split each pair is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.preferences.criteria import GRADES, OVERALL, aggregate_criterion, aggregate_grades, label_column
from vr_pipeline.preferences.labels import aggregate_annotators, check_preferences, usable_pairs
from vr_pipeline.rewards.videoreward.settings import TOTAL, DimensionSettings
from vr_pipeline.rewards.videoreward.training.config import HeldOutParameters, PreferenceRewardTrainingParameters
from vr_pipeline.statistics.clustered import linked_prompts

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
SIGN = {"a": 1.0, "tie": 0.0, "b": -1.0}
"""Labels as numbers; NaN is a masked one."""


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Pairs of clips with everything that people said of them.

    Attributes:
        table: pair_id, prompt_id, prompt, video_id_a, video_id_b, split and unit (prompts that cannot be parted, as a
            name), a row a pair, sorted by pair_id.
        names: the dimensions.
        label: by dimension: 1 (a), 0 (tie), -1 (b), NaN (masked), [pairs, dimensions].
        total: the overall label, likewise, [pairs].
        grades: of both clips, NaN where there is none, [pairs, 2, dimensions].
        left_out: pairs that cannot be used, with the reason.
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
        """Return hashes of all that training may know of pairs."""
        numbers = np.column_stack([self.label, self.grades.reshape(len(self.grades), -1), self.total])
        columns = ["pair_id", "prompt", "video_id_a", "video_id_b", "split"]
        texts = self.table[columns].itertuples(index=False, name=None)
        said = [content_hash(*text, repr(row.tolist())) for text, row in zip(texts, numbers, strict=True)]
        return [said[row] for row in rows]

    def counts(self) -> dict[str, Any]:
        """Count pairs, prompts and labels of each side of the split, and clips that are on both."""
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
    parameters: PreferenceRewardTrainingParameters,
) -> LabelledPairs:
    """Bring labels of all annotators together, and put every pair on one side of the split.

    A dimension's labels are the column ``preference_<criterion>``, or where there is none, which of two grades is
    higher; several annotators of a pair count by majority, their grades on average.

    Args:
        preferences: table of :class:`vr_pipeline.schemas.HumanPreferences`.
        video_index: the clips that they name.
        dimensions: what is trained.
        parameters: the loss, which decides what has to be there, and the split.

    Raises:
        InputError: a clip is unknown or compared with itself, a criterion or a grade is unknown, a dimension has
            nothing that the loss could learn from, or one side of the split is empty or says nothing.
    """
    check_preferences(preferences, video_index)
    everything = aggregate_annotators(preferences)
    pairs, left_out = usable_pairs(everything, video_index)
    if not len(pairs):
        raise InputError(
            f"none of the {len(everything)} pairs has two clips that could be read; the first reason: "
            f"{left_out['reason'].iloc[0]}",
            remedy="Correct what it names, then run again",
            file="human_preferences",
        )
    if len(left_out):
        logger.warning(
            "%d of %d pairs are left out because a clip cannot be read; the first reason: %s",
            len(left_out),
            len(everything),
            left_out["reason"].iloc[0],
        )
    label, grades = np.full((len(pairs), len(dimensions)), np.nan), np.full((len(pairs), 2, len(dimensions)), np.nan)
    for at, dimension in enumerate(dimensions):
        label[:, at], grades[:, :, at] = _said(preferences, pairs["pair_id"], dimension, parameters)
    table = pairs[["pair_id", "prompt_id", "prompt", "video_id_a", "video_id_b"]].copy()
    table["unit"] = _units(table)
    table["split"] = split_by_unit(table["unit"], parameters.held_out)
    total = _signs(pairs["preference"])
    found = LabelledPairs(table, tuple(one.name for one in dimensions), label, total, grades, left_out)
    _check(found, dimensions, parameters)
    return found


def trainable(pairs: LabelledPairs, parameters: PreferenceRewardTrainingParameters) -> NDArray[np.int64]:
    """Return the rows that are trained on: those of the split with something that the loss learns from."""
    usable = _learned_from(pairs, parameters.loss).any(axis=1)
    if not parameters.keep_ties:
        known = ~np.isnan(pairs.label)
        usable &= ~(known.any(axis=1) & ((pairs.label == 0) | ~known).all(axis=1))
    return np.flatnonzero(usable & (pairs.table["split"] == "train").to_numpy())


def split_by_unit(units: pd.Series, parameters: HeldOutParameters) -> pd.Series:
    """Return 'train', 'validation' or 'test' by a hash of the unit, so that no unit is on two sides.

    A unit keeps its side when others are added. Where a side would be empty, the unit of the nearest hash goes there.

    Raises:
        InputError: there are too few units for the sides.
    """
    sides = SPLITS if parameters.test_share else SPLITS[:2]
    unique = sorted(set(units))
    if len(unique) < len(sides):
        raise InputError(
            f"the preferences are about {len(unique)} prompt(s), and {' and '.join(sides)} need one each",
            remedy="Give preferences on more prompts" + (", or set test_share to 0" if parameters.test_share else ""),
            file="human_preferences",
            field="prompt",
        )
    place = {unit: int(content_hash("reward split", parameters.seed, unit), 16) / 2.0**64 for unit in unique}
    ordered = sorted(unique, key=lambda unit: (place[unit], unit))
    ends = np.cumsum([parameters.test_share, parameters.validation_share])
    first = sum(place[unit] < ends[0] for unit in unique)
    second = sum(place[unit] < ends[1] for unit in unique)
    if parameters.test_share:
        first = min(max(first, 1), len(unique) - 2)
    second = min(max(second, first + 1), len(unique) - 1)
    side = dict(zip(ordered, ["test"] * first + ["validation"] * (second - first), strict=False))
    return units.map(lambda unit: side.get(unit, "train"))


def _units(pairs: pd.DataFrame) -> list[str]:
    """Return the prompts that are kept together: those that share a compared clip, unless that links most of all.

    Pairs with a clip that was made for another prompt link all prompts in the end. Then a pair's own prompt decides.
    """
    linked = linked_prompts(*(pairs[name].to_numpy() for name in ("prompt_id", "video_id_a", "video_id_b")))
    _, sizes = np.unique(linked, return_counts=True)
    together = len(sizes) > len(SPLITS) and sizes.max() <= len(pairs) / 2
    return [str(unit) for unit in (linked if together else pairs["prompt_id"])]


def _said(
    preferences: pd.DataFrame,
    pair_ids: pd.Series,
    dimension: DimensionSettings,
    parameters: PreferenceRewardTrainingParameters,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a dimension's labels [pairs] and grades [pairs, 2], NaN where there is none."""
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
                f"the overall preference, which trains dimension '{dimension.name}', has no grades to regress on",
                remedy="Set its criterion to one with grades, or loss to btt",
                field="preference_reward_training.loss",
            )
        aggregate_grades(preferences, criterion)  # Says which criteria there are.
    if has_labels or not has_grades:
        table = aggregate_criterion(preferences, criterion).set_index("pair_id").reindex(pair_ids)
        label = _signs(table["preference"])
    else:
        label = np.sign(grades[:, 0] - grades[:, 1])
    return label, grades


def _signs(labels: pd.Series) -> NDArray[np.float64]:
    return np.array([SIGN.get(str(label), np.nan) for label in labels], dtype=np.float64)


def _check_grades(preferences: pd.DataFrame, criterion: str, parameters: PreferenceRewardTrainingParameters) -> None:
    low, high = parameters.grade_range
    for column in (f"{prefix}{criterion}" for prefix in GRADES.values()):
        if column not in preferences.columns:
            continue
        values = pd.to_numeric(preferences[column]).to_numpy(dtype=np.float64)
        wrong = (values < low) | (values > high)
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"the grade {values[row]:g} is outside of {low:g} to {high:g}",
                remedy="Correct it, or set grade_range to the scale that was used",
                file="human_preferences",
                row=row + 2,
                field=column,
            )


def _learned_from(pairs: LabelledPairs, loss: str) -> NDArray[np.bool_]:
    """Return from which pairs a loss learns something in a dimension, [pairs, dimensions]."""
    if loss == "regression":
        return np.asarray((~np.isnan(pairs.grades)).any(axis=1))
    return np.asarray(np.abs(pairs.label) == 1 if loss == "bt" else ~np.isnan(pairs.label))


def _check(
    pairs: LabelledPairs, dimensions: Sequence[DimensionSettings], parameters: PreferenceRewardTrainingParameters
) -> None:
    """Check that every dimension can be learned, and that checkpoints can be compared."""
    learned, train = _learned_from(pairs, parameters.loss), pairs.rows("train")
    for at, dimension in enumerate(dimensions):
        criterion, values = dimension.labelled_by, pairs.label[:, at]
        what = "grade" if parameters.loss == "regression" else "label"
        field = f"grade_a_{criterion}" if what == "grade" else label_column(criterion)
        if learned[train, at].any():
            continue
        if parameters.loss == "bt" and not learned[:, at].any() and (values == 0).any():
            raise InputError(
                f"all {int((values == 0).sum())} labels of dimension '{dimension.name}' are ties, of which the loss bt "
                "learns nothing",
                remedy="Give labels that are not ties, or set loss to btt, which learns from ties that clips are alike",
                file="human_preferences",
                field=field,
            )
        where = " on the training side of the split" if learned[:, at].any() else ""
        raise InputError(
            f"dimension '{dimension.name}' has no {what} to learn from{where}",
            remedy=f"Give {what}s in the criterion '{criterion}'{' on more prompts' if where else ''}, or leave the "
            "dimension out of 'network'",
            file="human_preferences",
            field=field,
        )
    decided = np.abs(pairs.label) == 1
    if decided[pairs.rows("validation")].any():
        return
    if decided.any() or parameters.loss != "btt":
        raise InputError(
            f"the {len(pairs.rows('validation'))} pairs of validation have no label that is not a tie, so that no "
            "checkpoint can be chosen by accuracy",
            remedy="Raise validation_share, or give labels on more prompts",
            file="human_preferences",
            field="preference_reward_training.held_out.validation_share",
        )
    logger.warning(
        "All labels are ties: training learns that clips are alike and nothing of which is better; checkpoints are "
        "chosen by likelihood."
    )
