"""Training items of a UnifiedReward from human labels.

An item is a row of :class:`vr_pipeline.schemas.UnifiedItems`: clips or texts, and the right answer. Comparisons give
pairs; ratings give points, and the pair of the best and worst of every prompt.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.preferences.criteria import GRADES, OVERALL, aggregate_criterion, criteria_of
from vr_pipeline.preferences.items.rows import ITEM_COLUMNS
from vr_pipeline.preferences.labels import aggregate_annotators
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedItemSources

COLUMNS: Final = tuple(name for name in ITEM_COLUMNS if not name.startswith("files_"))
PAIR_ANSWERS: Final = ("first", "second", "tie")
MIRRORED: Final = {"first": "second", "second": "first", "tie": "tie"}
"""The answer of a pair in reversed order."""

ELEMENT: Final = "element "
"""Prefix of dimensions about an element of the prompt, as in EvalMuse."""

_WORDS: Final = {"a": "first", "b": "second", "tie": "tie"}
_AGREEING: Final = 2
"""Annotators who must see an element (Wang et al. 2025, arXiv 2503.05236, appendix)."""
_RATING_COLUMNS: Final = ("prompt", "video_id", "dimension", "grade")


def items_from_preferences(
    preferences: pd.DataFrame, *, criterion: str = OVERALL, task: str = "video_generation", source: str | None = None
) -> pd.DataFrame:
    """Return one item per compared pair of clips, with the majority answer, or a tie without majority.

    Args:
        preferences: table of :class:`vr_pipeline.schemas.HumanPreferences`.
        criterion: a criterion of the table, or ``preference`` for the overall label.
        task: of :data:`~vr_pipeline.rewards.unifiedreward.template.TASKS`.
        source: value of the column ``source``; by default the first of the table.

    Raises:
        InputError: the table has no such criterion.
    """
    labels = aggregate_annotators(preferences) if criterion == OVERALL else aggregate_criterion(preferences, criterion)
    named = source if source is not None else str(next(iter(preferences["source"]), ""))
    table = labels[["prompt", "video_id_a", "video_id_b"]].assign(answer=labels["preference"].map(_WORDS))
    return items_of(table, task=task, form="pair", source=named)


def items_from_ratings(
    ratings: pd.DataFrame,
    *,
    task: str = "video_generation",
    source: str | None = None,
    pairs: bool = True,
    elements: bool = False,
) -> pd.DataFrame:
    """Return one point per rated clip and dimension with the mean grade, and pairs by :func:`best_and_worst`.

    Args:
        ratings: prompt, video_id, dimension (empty for the whole) and grade; ``response`` for rated texts about a clip
            (understanding tasks), and ``source``.
        task, source: see :func:`items_from_preferences`.
        pairs: whether to make pairs.
        elements: whether grades are presence (above 0) of an element of the prompt. The answer is 1 if two annotators
            (or the only one) see it, else 0. There are no pairs then.

    Raises:
        InputError: a column is missing, a grade is not a finite number, or there are no ratings.
    """
    table = _checked_ratings(ratings)
    named = source if source is not None else str(next(iter(ratings.get("source", pd.Series(dtype=str))), ""))
    keys = ["prompt", "video_id", "response", "dimension"]
    grouped = table.groupby(keys, sort=True)["grade"]
    grades = grouped.agg(_agreed if elements else "mean").reset_index()
    points = grades.rename(columns={"video_id": "video_id_a", "response": "response_a"})
    points["answer"] = [number_text(value) for value in points.pop("grade")]
    found = items_of(points, task=task, form="point", source=named)
    return mixed([found, best_and_worst(found)]) if pairs and not elements else found


def items_from_sources(
    preferences: pd.DataFrame | None, labels: pd.DataFrame | None, parameters: UnifiedItemSources
) -> pd.DataFrame:
    """Return the items of all given tables.

    Args:
        preferences: comparisons, schema ``HumanPreferences``, perhaps with grades; None for none.
        labels: items, or ratings for :func:`items_from_ratings`; None for none.
        parameters: the items to make.

    Raises:
        InputError: both tables are missing, or a table lacks a column.
    """
    found = []
    if preferences is not None:
        found.append(items_from_preferences(preferences, criterion=parameters.criterion, task=parameters.task))
        graded = grades_in(preferences)
        if parameters.grades and len(graded):
            found.append(items_from_ratings(graded, task=parameters.task, pairs=parameters.pairs_of_points))
    if labels is not None and "grade" in labels.columns:
        found.append(items_from_ratings(labels, task=parameters.task, pairs=parameters.pairs_of_points))
    elif labels is not None:
        found.append(labels)
        if parameters.pairs_of_points:
            found.append(best_and_worst(labels))
    if not found:
        raise InputError("there are no labels", remedy="Give comparisons, ratings or items")
    return mixed(found)


def grades_in(preferences: pd.DataFrame) -> pd.DataFrame:
    """Return the grades of comparisons as ratings: prompt, video_id, dimension, grade, source."""
    parts = []
    for criterion in criteria_of(preferences):
        for end, prefix in GRADES.items():
            if (column := f"{prefix}{criterion}") in preferences.columns:
                known = preferences[preferences[column].notna()]
                part = known[["prompt", "source"]].assign(video_id=known[f"video_id_{end}"], grade=known[column])
                parts.append(part.assign(dimension=criterion))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*_RATING_COLUMNS, "source"])


def best_and_worst(items: pd.DataFrame) -> pd.DataFrame:
    """Return the pair of the best and worst graded clip of every prompt (for texts: of every clip and question).

    They have the highest and lowest mean over dimensions; equal means are ordered by identifier. Only clips with all
    dimensions of their prompt are compared. Equal means and elements of a prompt give no pair.

    Args:
        items: those of form 'point' are used.
    """
    points = items[(items["form"] == "point") & ~items["dimension"].str.startswith(ELEMENT)]
    rows = []
    for (task, source, prompt, clip), part in points.groupby(
        ["task", "source", "prompt", points["video_id_a"].where(points["response_a"] != "", "")], sort=True
    ):
        of_texts = clip != ""
        grades = part.assign(grade=part["answer"].astype(np.float64)).pivot_table(
            index="response_a" if of_texts else "video_id_a", columns="dimension", values="grade"
        )
        means = grades.dropna().sort_index(kind="stable").mean(axis=1)
        if means.nunique() < 2:
            continue
        best, worst = str(means.idxmax()), str(means.idxmin())
        # The order must not depend on which one is better.
        turned = int(content_hash("first of a graded pair", str(prompt), str(clip), best, worst), 16) % 2 == 1
        first, second = (worst, best) if turned else (best, worst)
        names = ("response_a", "response_b") if of_texts else ("video_id_a", "video_id_b")
        row = {"prompt": prompt, "answer": "second" if turned else "first", "video_id_a": clip}
        rows.append({"task": task, "source": source, "form": "pair", **row, names[0]: first, names[1]: second})
    return _completed(pd.DataFrame(rows, columns=list(COLUMNS)))


def mixed(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the items of several tables without duplicates and other columns.

    Raises:
        InputError: a table lacks a column of items.
    """
    parts = []
    for number, table in enumerate(tables, start=1):
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise InputError(
                f"table {number} of items has no column '{missing[0]}'",
                remedy=f"Give the columns {', '.join(COLUMNS)}",
                field=missing[0],
            )
        if len(table):
            parts.append(table[list(COLUMNS)])
    whole = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))
    return whole.drop_duplicates("item_id", ignore_index=True)


def number_text(value: float) -> str:
    """Return a grade as the shortest text of at most six decimals."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def items_of(table: pd.DataFrame, *, task: str, form: str, source: str) -> pd.DataFrame:
    """Return items, the columns of ``schemas.UnifiedItems``; identifiers are content hashes.

    Args:
        table: video_id_a, prompt and answer; optionally video_id_b, response_a, response_b, dimension.
        task: of :data:`~vr_pipeline.rewards.unifiedreward.template.TASKS`.
        form: pair or point.
        source: name of their origin.
    """
    return _completed(table.assign(task=task, form=form, source=source))


def _completed(table: pd.DataFrame) -> pd.DataFrame:
    """Add identifiers, a weight of 1, and empty texts for missing ones."""
    given = table.assign(weight=1.0)
    for name in ("video_id_a", "video_id_b", "response_a", "response_b", "dimension"):
        given[name] = given[name].fillna("").astype(str) if name in given.columns else ""
    columns = ["source", "task", "form", "video_id_a", "video_id_b", "prompt", "response_a", "response_b", "answer"]
    rows = given[[*columns, "dimension"]].astype(str).itertuples(index=False, name=None)
    given["item_id"] = [content_hash("item", *row) for row in rows]
    return given[list(COLUMNS)].reset_index(drop=True)


def _checked_ratings(ratings: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in _RATING_COLUMNS if name not in ratings.columns]
    if missing:
        raise InputError(
            f"the ratings have no column '{missing[0]}'",
            remedy=f"Give the columns {', '.join(_RATING_COLUMNS)}",
            file="ratings",
            field=missing[0],
        )
    if not len(ratings):
        raise InputError("there are no ratings", remedy="Give at least one row", file="ratings")
    table = ratings[list(_RATING_COLUMNS)].copy()
    table["response"] = ratings["response"].fillna("").astype(str) if "response" in ratings.columns else ""
    table["dimension"] = table["dimension"].fillna("").astype(str)
    table["grade"] = pd.to_numeric(table["grade"], errors="coerce").astype(np.float64)
    wrong = ~np.isfinite(table["grade"].to_numpy())
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"the grade '{ratings['grade'].iloc[row]}' is not a finite number",
            remedy="Correct it, or remove the row",
            file="ratings",
            row=row + 2,
            field="grade",
        )
    return table


def _agreed(grades: pd.Series) -> float:
    """Return 1.0 if enough annotators see an element, else 0.0."""
    return float(int((grades > 0).sum()) >= min(_AGREEING, len(grades)))
