"""Several criteria in one table of preferences: labels and grades besides the overall preference.

For a criterion such as ``motion``, the table can have the label ``preference_<name>`` (``a``, ``b``, ``tie``) and the
grades ``grade_a_<name>`` and ``grade_b_<name>`` (numbers on any scale). A missing value is masked, which is not a tie.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import OVERALL as WHOLE
from vr_pipeline.preferences.journal import SKIP
from vr_pipeline.preferences.labels import aggregate_annotators
from vr_pipeline.preferences.rows import Source

OVERALL: Final = "preference"
"""The overall label, in the column ``preference``."""
LABEL: Final = "preference_"
GRADES: Final = {"a": "grade_a_", "b": "grade_b_"}
_TURNED: Final = {"a": "b", "b": "a", "tie": "tie"}
PLAIN_PREFIXES: Final = {prefix: prefix for prefix in (LABEL, *GRADES.values())}
"""Prefixes of a file's columns, in any case -> prefixes of the table's columns."""


def label_column(criterion: str) -> str:
    """Return the column of a criterion's labels."""
    return OVERALL if criterion == OVERALL else f"{LABEL}{criterion}"


def is_criterion_column(name: str) -> bool:
    """Return whether a column is the label or a grade of a criterion."""
    return any(name.startswith(prefix) and len(name) > len(prefix) for prefix in PLAIN_PREFIXES)


def criteria_of(preferences: pd.DataFrame) -> list[str]:
    """Return the criteria with labels or grades in a table, in column order, without the overall label."""
    names = [str(column) for column in preferences.columns if is_criterion_column(str(column))]
    return list(dict.fromkeys(name.removeprefix(_prefix(name)) for name in names))


def aggregate_criterion(preferences: pd.DataFrame, criterion: str) -> pd.DataFrame:
    """Return one row per pair with a label of a criterion, over all annotators.

    Args:
        preferences: table of :class:`vr_pipeline.schemas.HumanPreferences`; pairs can be in either order.
        criterion: a name of :func:`criteria_of`, or ``preference`` for the overall label.

    Returns:
        the columns of :func:`~vr_pipeline.preferences.labels.aggregate_annotators`, for annotators with a label.

    Raises:
        InputError: the table has no labels of the criterion.
    """
    column = label_column(criterion)
    _require(preferences, criterion, [column])
    known = preferences[preferences[column].notna()]
    return aggregate_annotators(known.assign(preference=known[column]))


def aggregate_grades(preferences: pd.DataFrame, criterion: str) -> pd.DataFrame:
    """Return the mean grades of both clips by a criterion, one row per pair with a grade.

    Args:
        preferences, criterion: see :func:`aggregate_criterion`; the overall label has no grades.

    Returns:
        pair_id, prompt_id, prompt, video_id_a, video_id_b (ordered by identifier), grade_a, grade_b: means over
        annotators, NaN without grades; sorted by pair_id.

    Raises:
        InputError: the table has no grades of the criterion.
    """
    columns = [f"{prefix}{criterion}" for prefix in GRADES.values()]
    _require(preferences, criterion, columns)
    first, second = (
        pd.to_numeric(preferences[name]) if name in preferences.columns else pd.Series(math.nan, preferences.index)
        for name in columns
    )
    turned = (preferences["video_id_a"] > preferences["video_id_b"]).to_numpy(dtype=bool)
    grades = pd.DataFrame({"grade_a": first.where(~turned, second), "grade_b": second.where(~turned, first)})
    graded = grades.notna().any(axis=1)
    pairs = aggregate_annotators(preferences[graded])
    means = grades[graded].groupby(preferences.loc[graded, "pair_id"]).mean()
    names = ["pair_id", "prompt_id", "prompt", "video_id_a", "video_id_b"]
    return pairs[names].join(means, on="pair_id")


def labels_and_grades(source: Source, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return labels and grades of every row of a file, and register their columns.

    Args:
        source: the file.
        columns: column of the table -> column of the file. Empty cells are masked; unknown labels and grades that are
            not numbers are problems of their row.
    """
    source.further_columns += columns
    rows: list[dict[str, Any]] = [{} for _ in source.good]
    for column, name in columns.items():
        for i, value in enumerate(source.column(name)):
            if column.startswith(LABEL):
                rows[i][column] = source.label_if_any(value, i, name)
            else:
                rows[i][column] = source.number_if_any(value, i, name)
    return rows


def answers_by_criterion(source: Source) -> list[dict[str, str | None]]:
    """Return for every answer of an annotation journal the annotator's labels of the pair by criterion.

    The overall label is excluded. Labels refer to the sides of that answer; skipped and open questions are masked.
    """
    names = list(dict.fromkeys(str(entry.values["criterion"]) for entry in source.good))
    columns = {name: f"{LABEL}{name}" for name in names if name != WHOLE}
    source.further_columns += columns.values()
    labelled: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}
    for i, entry in enumerate(entry.values for entry in source.good):
        if entry["criterion"] in columns and entry["choice"] != SKIP:
            label = source.label(entry["choice"], i, "choice")
            of_pair = labelled.setdefault((entry["annotator"], entry["pair"]), {})
            of_pair[columns[entry["criterion"]]] = (entry["left"], label)
    rows: list[dict[str, str | None]] = []
    for entry in (entry.values for entry in source.good):
        given = labelled.get((entry["annotator"], entry["pair"]), {})
        labels = {name: label if left == entry["left"] else _TURNED[label] for name, (left, label) in given.items()}
        rows.append(dict.fromkeys(columns.values()) | labels)
    return rows


def columns_in(source: Source, prefixes: Mapping[str, str], labels: Iterable[str] = ()) -> dict[str, str]:
    """Return the columns of labels and grades in a file: column of the table -> column of the file.

    Args:
        source: the file.
        prefixes: prefixes of the file's columns -> prefixes of the table's.
        labels: columns of the file named by the criterion only.
    """
    found = {f"{LABEL}{name}": name for name in labels if source.has(name)}
    for name in (*source.entries.columns, *(known for known in source.columns if source.has(known))):
        plain = name.strip()
        for start, prefix in prefixes.items():
            if plain.casefold().startswith(start.casefold()) and len(plain) > len(start):
                found.setdefault(prefix + plain[len(start) :], name)
    return found


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with labels as text and grades as numbers, also if all are masked."""
    kinds = {
        name: "str" if name.startswith(LABEL) else "float64" for name in table.columns if is_criterion_column(name)
    }
    return table.astype(kinds)


def _prefix(name: str) -> str:
    return next(prefix for prefix in PLAIN_PREFIXES if name.startswith(prefix))


def _require(preferences: pd.DataFrame, criterion: str, columns: list[str]) -> None:
    if not any(column in preferences.columns for column in columns):
        raise InputError(
            f"the preferences have no criterion '{criterion}', only {', '.join([OVERALL, *criteria_of(preferences)])}",
            remedy=f"use one of these, or add the column {' or '.join(columns)}",
            file="human_preferences",
            field=columns[0],
        )
