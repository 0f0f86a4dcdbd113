"""Readers of the files in which human preferences come, into one table; writers of the lists other trainers read.

Every reader gives the columns of :class:`vr_pipeline.schemas.HumanPreferences`, and beside them ``video_path_a``,
``video_path_b``, ``generator_a`` and ``generator_b`` (empty where the file does not say). A clip given as a file gets
an identifier from its prompt and its path. A row that cannot be used is left out with its reason; where more than one
row and more than a tenth are bad, the file is not what it is taken for, and reading stops.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import annotator_key, content_hash, first_spellings, prompt_id, same_name
from vr_pipeline.preferences.rows import Layout, Row, Source
from vr_pipeline.preferences.rows import file_identifier as file_identifier
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.storage.tables import Entries, Entry, left_out, read_entries

PREFERENCE_COLUMNS = ("pair_id", "prompt", "video_id_a", "video_id_b", "preference", "annotator", "source")
FILE_COLUMNS = ("video_path_a", "video_path_b", "generator_a", "generator_b")


_LAYOUTS: Final = {
    "plain": Layout(("video_path_a",), ("video_path_b",), "preference", {"a": "a", "b": "b", "tie": "tie"}),
    # The values of standard_answer are not documented: the user has to say what they mean.
    "visionreward": Layout(("video1_path", "image1_path"), ("video2_path", "image2_path"), "standard_answer", None),
    "videogen_rewardbench": Layout(
        ("path_A",), ("path_B",), "", {"A": "a", "B": "b", "same": "tie"}, ("A_model", "B_model")
    ),
    "genai_bench": Layout(
        ("left_video", "video_left"),
        ("right_video", "video_right"),
        "vote_type",
        {"leftvote": "a", "rightvote": "b", "tievote": "tie", "bothbad_vote": "tie"},
        ("left_model", "right_model"),
    ),
}
_JOURNAL_LABELS: Final = {"left": "a", "right": "b", "tie": "tie", "both_bad": "tie"}


def read_preferences(
    path: str | Path,
    format: str = "plain",  # the word of the catalog entry
    *,
    labels: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    criterion: str = "Overall",
    source: str | None = None,
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Read a file of preferences.

    Args:
        path: CSV (or TSV), JSON, JSON lines or parquet; see :func:`vr_pipeline.storage.tables.read_entries`.
        format: one of :data:`FORMATS`.
        labels: label in the file -> ``a``, ``b`` or ``tie``, in place of the format's own map.
        columns: name this reader knows -> name in the file, where they differ.
        criterion: column of the label (videogen_rewardbench: Overall, VQ, MQ or TA) or of the rating (rated_items), or
            what was asked (annotations: Overall or the name of a dimension).
        source: what the column ``source`` says; the format's name without it.
        encoding: of a text file without a byte order mark.

    Returns:
        One row a pair and annotator, in file order. Prompts and annotators that are the same
        (:mod:`vr_pipeline.identifiers`) are spelled as where they first stand. ``attrs["skipped"]`` counts entries
        that hold no preference, ``attrs["rejected"]`` those that cannot be used.

    Raises:
        InputError: the file is empty or cannot be read, a column is missing, or too many rows are bad.
    """
    material = _open(path, format, labels=labels, columns=columns, criterion=criterion, encoding=encoding)
    rows = _READERS[format](material)
    total = len(material.entries.rows)
    of_file = [problem for problem in material.problems if problem.row is None]
    bad = left_out(of_file or material.problems, total, what="preferences")
    result = _table([row for row in rows if row[0] not in bad], material, source or format).reset_index(drop=True)
    if not len(result):
        raise InputError(
            f"none of the {total} entries holds a preference", remedy="check the file and its format", file=path
        )
    return result


def examine_preferences(
    path: str | Path,
    format: str = "plain",  # the word of the catalog entry
    *,
    labels: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    criterion: str = "Overall",
) -> tuple[pd.DataFrame, list[InputError]]:
    """Read as :func:`read_preferences` does, and collect everything that is wrong.

    Args are those of :func:`read_preferences`.

    Returns:
        the table, with values that stand in where the file has none (empty if a column is missing) and the row of the
        file as its index; and the problems. Rows are judged once all columns are there.
    """
    nothing = pd.DataFrame(columns=[*PREFERENCE_COLUMNS, *FILE_COLUMNS])
    try:
        material = _open(path, format, labels=labels, columns=columns, criterion=criterion)
        rows = _READERS[format](material)
    except InputError as error:
        return nothing, [error]
    if not rows and not material.problems:
        material.problems.append(
            InputError("no entry holds a preference", remedy="check the file and its format", file=path)
        )
    of_file = [problem for problem in material.problems if problem.row is None]
    if of_file:
        return nothing, of_file
    return _table(rows, material, format), material.problems


def _table(rows: list[Row], material: Source, source: str) -> pd.DataFrame:
    columns = [*PREFERENCE_COLUMNS, *FILE_COLUMNS, *material.further_columns]
    table = pd.DataFrame([row for _, row in rows], columns=columns, index=[number for number, _ in rows])
    table["source"] = table["source"].where(table["source"] != "", source)
    table["prompt"] = first_spellings(table["prompt"], prompt_id)
    table["annotator"] = first_spellings(table["annotator"], annotator_key)
    entries = len(material.entries.rows)
    table.attrs |= {"skipped": material.skipped, "rejected": len(material.bad_rows), "entries": entries}
    return table


def _open(
    path: str | Path,
    format: str,
    *,
    labels: Mapping[str, str] | None,
    columns: Mapping[str, str] | None,
    criterion: str,
    encoding: str = "utf-8",
) -> Source:
    if format not in _READERS:
        raise InputError(
            f"unknown format '{format}'", remedy=f"use one of {', '.join(_READERS)}", field="format", file=path
        )
    if labels is None:
        labels = _LAYOUTS[format].labels if format in _LAYOUTS else _JOURNAL_LABELS
    wrong = sorted(set((labels or {}).values()) - {"a", "b", "tie"})
    if wrong:
        raise InputError(
            f"the label map leads to '{wrong[0]}'", remedy="map every label to a, b or tie", field="labels", file=path
        )
    entries = _read_journal(Path(path)) if format == "annotations" else read_entries(Path(path), encoding=encoding)
    if not entries.rows:
        raise InputError("there are no preferences in the file", remedy="give one or more rows", file=path)
    return Source(entries, labels, dict(columns or {}), criterion, _LAYOUTS.get(format))


def _comparisons(source: Source) -> list[Row]:
    """Formats with a row for each comparison; the plain one may name clips, pair, annotator and source besides."""
    layout = source.layout
    assert layout is not None
    plain = layout is _LAYOUTS["plain"]
    named = plain and (source.has("video_id_a") or not source.has("video_path_a"))
    label = layout.label or source.criterion
    rows = zip(
        source.column("prompt"),
        zip(*(source.column(*names, required=not named) for names in (layout.first, layout.second)), strict=True),
        source.column(label),
        zip(*(source.column(name, required=False) for name in layout.generators), strict=True),
        zip(*(source.column(name, required=named) for name in ("video_id_a", "video_id_b")), strict=True),
        *(source.column(name if plain else "", required=False) for name in ("annotator", "source", "pair_id")),
        strict=True,
    )
    return [
        source.row(
            position,
            prompt,
            files,
            source.label(answer, position, label),
            generators=generators,
            identifiers=identifiers if named else None,
            annotator=annotator,
            source=origin,
            pair=pair,
        )
        for position, (prompt, files, answer, generators, identifiers, annotator, origin, pair) in enumerate(rows)
    ]


def _hpdv2(source: Source) -> list[Row]:
    """Training lists have one preferred image of two (human_preference); test lists rank several (lower is better).

    Of a test entry the ranking of every annotator is taken where it is given, the averaged one otherwise.
    """
    result: list[Row] = []
    training = source.has("human_preference")
    raw = next((name for name in ("raw_annotations", "raw_annotation") if source.has(name)), "")
    rows = zip(
        source.column("prompt"),
        source.column("image_path", "file_path"),
        source.column("human_preference" if training else "rank", required=training or not raw),
        source.column(raw, required=False),
        source.column("user_hash", required=False),
        strict=True,
    )
    for i, (prompt, files, order, rankings, user) in enumerate(rows):
        if not isinstance(files, list):
            source.refuse(i, "image_path", "there is no list of files")
            continue
        if training or not rankings:
            name = "human_preference" if training else "rank"
            ranks = source.numbers(order, i, name, len(files))
            result += _pairs_of(source, i, prompt, files, [-rank for rank in ranks] if training else ranks, user)
            continue
        for k, one in enumerate(rankings):
            entry = one if isinstance(one, Mapping) else {"rank": one}
            ranks = source.numbers(entry.get("rank"), i, raw, len(files))
            annotator = source.text(entry.get("user_hash"), i, raw) or f"annotator {k + 1}"
            result += _pairs_of(source, i, prompt, files, ranks, annotator)
    return result


def _pick_a_pic(source: Source) -> list[Row]:
    result: list[Row] = []
    rows = zip(
        source.column("caption"),
        source.column("image_0_uid", "jpg_0"),
        source.column("image_1_uid", "jpg_1"),
        source.column("label_0"),
        source.column("label_1"),
        source.column("model_0", required=False),
        source.column("model_1", required=False),
        source.column("user_id", required=False),
        source.column("has_label") if source.has("has_label") else [True] * len(source.good),
        strict=True,
    )
    known: dict[tuple[float, ...], str] = {(1.0, 0.0): "a", (0.0, 1.0): "b", (0.5, 0.5): "tie"}
    for i, (prompt, first, second, label_0, label_1, model_0, model_1, user, has_label) in enumerate(rows):
        if source.text(has_label, i, "has_label").strip().lower() in ("", "false", "0"):
            source.skipped += 1
            continue
        label = tuple(source.numbers((label_0, label_1), i, "label_0", 2))
        if label not in known:
            problem = f"unknown labels {label_0} and {label_1}"
            source.refuse(i, "label_0", problem, "use 1 and 0, 0 and 1, or 0.5 and 0.5")
        files = (_image_name(first), _image_name(second))
        models = (model_0, model_1)
        result.append(source.row(i, prompt, files, known.get(label, "tie"), annotator=user, generators=models))
    return result


def _imagerewarddb(source: Source) -> list[Row]:
    return _pairs_in_groups(source, "prompt_id", "image_path", "rank", lower_is_better=True)


def _rated_items(source: Source) -> list[Row]:
    """One row an item: ``group``, ``prompt``, ``item`` (file) and a rating where higher is better; equal is a tie.

    A column ``score`` (mapped under 'columns') comes along as score_a and score_b.
    """
    return _pairs_in_groups(source, "group", "item", source.criterion, lower_is_better=False)


def _annotations(source: Source) -> list[Row]:
    """Answers given on the annotation page; of the criteria that were asked, one is taken.

    The columns both_bad, criterion, seconds and annotated_at come along.
    """
    source.further_columns += ["both_bad", "criterion", "seconds", "annotated_at"]
    result: list[Row] = []
    for i, entry in enumerate(entry.values for entry in source.good):
        if str(entry["criterion"]).casefold() != source.criterion.casefold():
            source.skipped += 1
            continue
        number, row = source.row(
            i,
            entry["prompt"],
            (entry["left_file"], entry["right_file"]),
            source.label(entry["choice"], i, "choice"),
            identifiers=(entry["left"], entry["right"]),
            annotator=entry["annotator"],
            generators=(entry["left_generator"], entry["right_generator"]),
            source=f"annotations {entry['study']}",
        )
        row |= {
            "both_bad": entry["choice"] == "both_bad",
            "criterion": entry["criterion"],
            "seconds": float(entry["seconds"]),
            "annotated_at": entry["at"],
        }
        result.append((number, row))
    return result


def _pairs_in_groups(
    source: Source, group_column: str, file_column: str, value_column: str, *, lower_is_better: bool
) -> list[Row]:
    """All pairs of the items of each group; an item that cannot be used is in none of them."""
    prompts, files = source.column("prompt"), source.column(file_column)
    groups = source.column(group_column)
    values = [source.numbers([value], i, value_column, 1)[0] for i, value in enumerate(source.column(value_column))]
    scores: list[float] | None = None
    if source.has("score"):
        source.further_columns += ["score_a", "score_b"]
        scores = [source.numbers([value], i, "score", 1)[0] for i, value in enumerate(source.column("score"))]
    members_of: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        members_of.setdefault(same_name(source.text(group, i, group_column)), []).append(i)
    bad = source.bad_rows
    result: list[Row] = []
    for members in members_of.values():
        for i, j in combinations([member for member in members if source.good[member].row not in bad], 2):
            worse = values[i] - values[j] if lower_is_better else values[j] - values[i]
            preference = "tie" if worse == 0 else ("b" if worse > 0 else "a")
            number, row = source.row(j, prompts[i], (files[i], files[j]), preference)
            if scores is not None:
                row["score_a"], row["score_b"] = scores[i], scores[j]
            result.append((number, row))
    return result


def _pairs_of(
    source: Source, position: int, prompt: Any, files: Sequence[Any], ranks: Sequence[float], annotator: Any
) -> list[Row]:
    """All pairs of one entry that lists files with their ranks (lower is better, equal is a tie)."""
    return [
        source.row(
            position,
            prompt,
            (files[i], files[j]),
            "tie" if ranks[i] == ranks[j] else ("a" if ranks[i] < ranks[j] else "b"),
            annotator=annotator,
        )
        for i, j in combinations(range(len(files)), 2)
    ]


def _image_name(image: Any) -> Any:
    """A file name or identifier; embedded images (bytes) are named by their content."""
    if isinstance(image, Mapping):
        image = image.get("path") or image.get("bytes")
    return f"embedded/{content_hash('image', image)}" if isinstance(image, bytes) else image


def _read_journal(path: Path) -> Entries:
    """Standing answers of an annotation journal; messages count answers, since lines may be taken back."""
    from vr_pipeline.annotation.store import standing_labels

    rows = [Entry(number, label) for number, label in enumerate(standing_labels(path), start=1)]
    return Entries(path, tuple(rows[0].values) if rows else (), rows)


_READERS: dict[str, Callable[[Source], list[Row]]] = {
    **dict.fromkeys(_LAYOUTS, _comparisons),
    "hpdv2": _hpdv2,
    "pick_a_pic": _pick_a_pic,
    "imagerewarddb": _imagerewarddb,
    "rated_items": _rated_items,
    "annotations": _annotations,
}
FORMATS = tuple(_READERS)


def video_dpo_list(pairs: pd.DataFrame, video_index: pd.DataFrame) -> list[dict[str, Any]]:
    """Pairs as VideoDPO's pair.json: video1 is preferred, score is the margin."""
    path, prompt = _path_and_prompt(video_index)
    return [
        {"video1": path[winner], "video2": path[loser], "frame_caption": prompt[winner], "score": float(margin)}
        for winner, loser, margin in zip(
            pairs["winner_video_id"], pairs["loser_video_id"], pairs["margin"], strict=True
        )
    ]


def unified_reward_list(pairs: pd.DataFrame, video_index: pd.DataFrame) -> list[dict[str, Any]]:
    """Pairs as UnifiedReward's list: id, caption, chosen, rejected."""
    path, prompt = _path_and_prompt(video_index)
    return [
        {"id": i, "caption": prompt[winner], "chosen": path[winner], "rejected": path[loser]}
        for i, (winner, loser) in enumerate(zip(pairs["winner_video_id"], pairs["loser_video_id"], strict=True))
    ]


def write_list(entries: list[dict[str, Any]], path: str | Path) -> None:
    """Writes one of the lists above as JSON."""
    write_text(Path(path), json.dumps(entries, ensure_ascii=False, indent=1) + "\n")


def _path_and_prompt(video_index: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    identifiers = list(video_index["video_id"])
    return (
        dict(zip(identifiers, video_index["path"].astype(str), strict=True)),
        dict(zip(identifiers, video_index["prompt"].astype(str), strict=True)),
    )
