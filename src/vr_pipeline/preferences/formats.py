"""Readers of files of human preferences into one table.

Every reader gives the columns of :class:`vr_pipeline.schemas.HumanPreferences`, and ``video_path_a``,
``video_path_b``, ``generator_a`` and ``generator_b`` (empty if unknown), and criteria
(:mod:`vr_pipeline.preferences.criteria`). A clip given as a file gets an identifier from prompt and path. Unusable rows
are skipped with their reason; if more than one row and more than a tenth are unusable, the file is rejected.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import annotator_key, first_spellings, prompt_id, same_name
from vr_pipeline.preferences.criteria import PLAIN_PREFIXES, answers_by_criterion, columns_in, labels_and_grades, typed
from vr_pipeline.preferences.embedded import clip_name
from vr_pipeline.preferences.journal import CHOICES, SKIP, standing_labels
from vr_pipeline.preferences.rows import Comparison, Comparisons, Format, Source
from vr_pipeline.preferences.segments import segments_in
from vr_pipeline.preferences.winners import read_folders, video_dpo, winner_and_loser
from vr_pipeline.storage.tables import Entries, Entry, left_out, read_entries

PREFERENCE_COLUMNS = ("pair_id", "prompt", "video_id_a", "video_id_b", "preference", "annotator", "source")
FILE_COLUMNS = ("video_path_a", "video_path_b", "generator_a", "generator_b")


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
        path: CSV (or TSV), JSON, JSON lines or parquet (see :func:`vr_pipeline.storage.tables.read_entries`), a journal
            (``annotations``) or a folder (``folders``).
        format: a key of :data:`FORMATS`.
        labels: label in the file -> ``a``, ``b`` or ``tie``, instead of the format's map.
        columns: name known to the reader -> name in the file, if they differ.
        criterion: column of the label (videogen_rewardbench: Overall, VQ, MQ or TA) or rating (rated_items), or the
            question (annotations: Overall or a dimension).
        source: value of the column ``source``; by default the format's name.
        encoding: of a text file without byte order mark.

    Returns:
        One row per pair and annotator, in file order. Equal prompts and annotators (:mod:`vr_pipeline.identifiers`)
        have their first spelling. ``attrs["skipped"]`` counts entries without preference, ``attrs["rejected"]``
        unusable ones.

    Raises:
        InputError: the file is empty or cannot be read, a column is missing, or too many rows are unusable.
    """
    material, rows = _read(path, format, labels, columns, criterion, encoding)
    total = len(material.entries.rows)
    bad = left_out(_of_file(material) or material.problems, total, what="preferences")
    result = _table([row for row in rows if row[0] not in bad], material, source or format).reset_index(drop=True)
    if not len(result):
        problem = f"none of the {total} entries has a preference"
        raise InputError(problem, remedy="check the file and its format", file=path)
    return result


def examine_preferences(
    path: str | Path,
    format: str = "plain",  # the word of the catalog entry
    *,
    labels: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    criterion: str = "Overall",
) -> tuple[pd.DataFrame, list[InputError]]:
    """Read as :func:`read_preferences`, and collect all problems.

    Returns:
        the table (empty if a column is missing), with placeholders for unusable values and the row of the file as
        index; and the problems.
    """
    nothing = pd.DataFrame(columns=[*PREFERENCE_COLUMNS, *FILE_COLUMNS])
    try:
        material, rows = _read(path, format, labels, columns, criterion)
    except InputError as error:
        return nothing, [error]
    if not rows and not material.problems:
        problem = InputError("no entry has a preference", remedy="check the file and its format", file=path)
        material.problems.append(problem)
    if of_file := _of_file(material):
        return nothing, of_file
    return _table(rows, material, format), material.problems


def _read(
    path: str | Path,
    format: str,
    labels: Mapping[str, str] | None,
    columns: Mapping[str, str] | None,
    criterion: str,
    encoding: str = "utf-8",
) -> tuple[Source, list[tuple[int, dict[str, Any]]]]:
    """Return all rows with their row in the file, and the source with its problems."""
    if format not in FORMATS:
        remedy = f"use one of {', '.join(FORMATS)}"
        raise InputError(f"unknown format '{format}'", remedy=remedy, field="format", file=path)
    labels = FORMATS[format].labels if labels is None else labels
    wrong = sorted(set((labels or {}).values()) - {"a", "b", "tie"})
    if wrong:
        problem = f"a label is mapped to '{wrong[0]}'"
        raise InputError(problem, remedy="map every label to a, b or tie", field="labels", file=path)
    own = FORMATS[format].entries
    entries = own(Path(path)) if own is not None else read_entries(Path(path), encoding=encoding)
    if not entries.rows:
        raise InputError("the file has no preferences", remedy="give at least one row", file=path)
    material = Source(entries, labels, dict(columns or {}), criterion)
    return material, [material.row(at, comparison) for at, comparison in FORMATS[format].read(material)]


def _of_file(material: Source) -> list[InputError]:
    return [problem for problem in material.problems if problem.row is None]


def _table(rows: list[tuple[int, dict[str, Any]]], material: Source, source: str) -> pd.DataFrame:
    columns = [*PREFERENCE_COLUMNS, *FILE_COLUMNS, *material.further_columns]
    table = pd.DataFrame([row for _, row in rows], columns=columns, index=[number for number, _ in rows])
    table["source"] = table["source"].where(table["source"] != "", source)
    table["prompt"] = first_spellings(table["prompt"], prompt_id)
    table["annotator"] = first_spellings(table["annotator"], annotator_key)
    entries = len(material.entries.rows)
    table.attrs |= {"skipped": material.skipped, "rejected": len(material.bad_rows), "entries": entries}
    return typed(table)


def _row_a_comparison(
    first: Sequence[str],
    second: Sequence[str],
    label: str = "",
    generators: Sequence[str] = ("generator_a", "generator_b"),
    criteria: Callable[[Source], dict[str, str]] | None = None,
) -> Callable[[Source], Comparisons]:
    """Return a reader of a format with one row per comparison.

    Args:
        first, second: columns of the clips, of which the first present is used.
        label: column of the label; empty for the given criterion.
        generators: columns of the generators.
        criteria: finds other labels and grades; see :func:`~vr_pipeline.preferences.criteria.labels_and_grades`.
    """

    def read(source: Source) -> Comparisons:
        name = label or source.criterion
        further = labels_and_grades(source, criteria(source) if criteria else {})
        for i, (prompt, files, answer, models) in enumerate(
            zip(
                source.column("prompt"),
                source.columns_of([first, second]),
                source.column(name),
                source.columns_of([[one] for one in generators], required=False),
                strict=True,
            )
        ):
            yield i, Comparison(prompt, files, source.label(answer, i, name), generators=models, more=further[i])

    return read


def _plain(source: Source) -> Comparisons:
    """Read one row per comparison, optionally with clips, pair, annotator, source and criteria."""
    named = source.has("video_id_a") or not source.has("video_path_a")
    rows = zip(
        source.column("prompt"),
        source.columns_of([["video_path_a"], ["video_path_b"]], required=not named),
        source.column("preference"),
        source.columns_of([["generator_a"], ["generator_b"]], required=False),
        source.columns_of([["video_id_a"], ["video_id_b"]], required=named),
        source.columns_of([["annotator"], ["source"], ["pair_id"]], required=False),
        strict=True,
    )
    further, parts = labels_and_grades(source, columns_in(source, PLAIN_PREFIXES)), segments_in(source)
    for i, (prompt, files, answer, models, ids, (annotator, origin, pair)) in enumerate(rows):
        label, more = source.label(answer, i, "preference"), further[i] | parts[i]
        yield i, Comparison(prompt, files, label, annotator, models, origin, ids if named else None, pair, more)


def _rewardbench_criteria(source: Source) -> dict[str, str]:
    prefixes = {**PLAIN_PREFIXES, "MOS_A_": "grade_a_", "MOS_B_": "grade_b_"}
    return columns_in(source, prefixes, labels=("VQ", "MQ", "TA"))


def _hpdv2(source: Source) -> Comparisons:
    """Read training lists, with one preferred image of two, and test lists, which rank several (lower is better).

    Test entries use the ranking of every annotator, or the average without them.
    """
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
    for i, (prompt, files, order, given, user) in enumerate(rows):
        if not isinstance(files, list):
            source.reject(i, "image_path", "the list of files is missing")
            continue
        name, rankings = ("human_preference" if training else "rank"), [(order, user)]
        if given and not training:
            entries = [one if isinstance(one, Mapping) else {"rank": one} for one in given]
            name = raw
            rankings = [
                (one.get("rank"), source.text(one.get("user_hash"), i, raw) or f"annotator {k}")
                for k, one in enumerate(entries, start=1)
            ]
        for ranking, annotator in rankings:
            ranks = source.numbers(ranking, i, name, len(files))
            for a, b in combinations(range(len(files)), 2):
                better = ranks[a] - ranks[b] if training else ranks[b] - ranks[a]
                yield i, Comparison(prompt, (files[a], files[b]), _preference(better), annotator)


def _pick_a_pic(source: Source) -> Comparisons:
    known: dict[tuple[float, ...], str] = {(1.0, 0.0): "a", (0.0, 1.0): "b", (0.5, 0.5): "tie"}
    rows = zip(
        source.column("caption"),
        source.columns_of([["jpg_0", "image_0_uid"], ["jpg_1", "image_1_uid"]]),
        source.columns_of([["image_0_uid"], ["image_1_uid"]], required=False),
        source.columns_of([["label_0"], ["label_1"]]),
        source.columns_of([["model_0"], ["model_1"], ["user_id"]], required=False),
        source.column("has_label") if source.has("has_label") else [True] * len(source.good),
        strict=True,
    )
    for i, (prompt, images, names, labels, (model_0, model_1, user), has_label) in enumerate(rows):
        if source.text(has_label, i, "has_label").strip().lower() in ("", "false", "0"):
            source.skipped += 1
            continue
        label = tuple(source.numbers(labels, i, "label_0", 2))
        if label not in known:
            problem = f"unknown labels {labels[0]} and {labels[1]}"
            source.reject(i, "label_0", problem, "use 1 and 0, 0 and 1, or 0.5 and 0.5")
        files = (clip_name(images[0], names[0]), clip_name(images[1], names[1]))
        yield i, Comparison(prompt, files, known.get(label, "tie"), user, (model_0, model_1))


def _row_an_item(group_column: str, file_column: str, value_column: str, sign: int) -> Callable[[Source], Comparisons]:
    """Return a reader of a format with one row per item, with all pairs of a group.

    Unusable items are in no pair. A column ``score`` becomes score_a and score_b.

    Args:
        group_column, file_column: columns of group and file.
        value_column: rank or rating; empty for the given criterion.
        sign: 1 if higher values are better, -1 if lower ones are.
    """

    def read(source: Source) -> Comparisons:
        prompts, files, groups = source.column("prompt"), source.column(file_column), source.column(group_column)
        name = value_column or source.criterion
        values = [source.numbers([value], i, name, 1)[0] for i, value in enumerate(source.column(name))]
        scores = None
        if source.has("score"):
            source.further_columns += ["score_a", "score_b"]
            scores = [source.numbers([value], i, "score", 1)[0] for i, value in enumerate(source.column("score"))]
        members_of: dict[str, list[int]] = {}
        for i, group in enumerate(groups):
            members_of.setdefault(same_name(source.text(group, i, group_column)), []).append(i)
        bad = source.bad_rows
        for members in members_of.values():
            for i, j in combinations([member for member in members if source.good[member].row not in bad], 2):
                more = {} if scores is None else {"score_a": scores[i], "score_b": scores[j]}
                label = _preference(sign * (values[i] - values[j]))
                yield j, Comparison(prompts[i], (files[i], files[j]), label, more=more)

    return read


def _annotations(source: Source) -> Comparisons:
    """Read answers of the annotation page, with one criterion as the preference.

    The table also has both_bad, criterion, seconds, annotated_at, and the annotator's labels by the other criteria.
    """
    source.further_columns += ["both_bad", "criterion", "seconds", "annotated_at"]
    by_criterion = answers_by_criterion(source)
    for i, entry in enumerate(entry.values for entry in source.good):
        if str(entry["criterion"]).casefold() != source.criterion.casefold() or entry["choice"] == SKIP:
            source.skipped += 1
            continue
        yield (
            i,
            Comparison(
                entry["prompt"],
                (entry["left_file"], entry["right_file"]),
                source.label(entry["choice"], i, "choice"),
                entry["annotator"],
                (entry["left_generator"], entry["right_generator"]),
                f"annotations {entry['study']}",
                (entry["left"], entry["right"]),
                more={
                    "both_bad": entry["choice"] == "both_bad",
                    "criterion": entry["criterion"],
                    "seconds": float(entry["seconds"]),
                    "annotated_at": entry["at"],
                    **by_criterion[i],
                },
            ),
        )


def _preference(better: float) -> str:
    """Return the label of a comparison from the lead of the first clip."""
    return "tie" if better == 0 else "a" if better > 0 else "b"


def _read_journal(path: Path) -> Entries:
    """Read the valid answers of an annotation journal; rows count answers, since some lines are undone."""
    rows = [Entry(number, label) for number, label in enumerate(standing_labels(path), start=1)]
    return Entries(path, tuple(rows[0].values) if rows else (), rows)


_PROMPT, _CAPTION = ("prompt",), ("caption",)

FORMATS: Final = {
    "plain": Format(
        _plain,
        {"a": "a", "b": "b", "tie": "tie"},
        (_PROMPT, ("preference",), ("video_path_a", "video_id_a"), ("video_path_b", "video_id_b")),
    ),
    "winner_loser": Format(
        winner_and_loser(("prompt", "caption"), ("winner",), ("loser",)),
        {},
        (("prompt", "caption"), ("winner",), ("loser",)),
        (("winner", ""), ("loser", "")),
    ),
    "video_dpo": Format(video_dpo, {}, (("frame_caption",), ("video1",), ("video2",))),
    "unified_reward": Format(
        winner_and_loser(("caption", "prompt"), ("chosen",), ("rejected",)),
        {},
        (("caption", "prompt"), ("chosen",), ("rejected",)),
        (("chosen", ""), ("rejected", "")),
    ),
    "folders": Format(winner_and_loser(("prompt",), ("winner",), ("loser",)), {}, entries=read_folders),
    "visionreward": Format(
        _row_a_comparison(("video1_path", "image1_path"), ("video2_path", "image2_path"), "standard_answer"),
        columns=(_PROMPT, ("standard_answer",), ("video1_path", "image1_path"), ("video2_path", "image2_path")),
    ),
    "videogen_rewardbench": Format(
        _row_a_comparison(("path_A",), ("path_B",), generators=("A_model", "B_model"), criteria=_rewardbench_criteria),
        {"A": "a", "B": "b", "same": "tie"},
        (_PROMPT, ("Overall",), ("path_A",), ("path_B",)),
    ),
    "genai_bench": Format(
        _row_a_comparison(
            ("left_video", "video_left"), ("right_video", "video_right"), "vote_type", ("left_model", "right_model")
        ),
        {"leftvote": "a", "rightvote": "b", "tievote": "tie", "bothbad_vote": "tie"},
        (_PROMPT, ("vote_type",), ("left_video", "video_left"), ("right_video", "video_right")),
    ),
    "hpdv2": Format(
        _hpdv2,
        {},
        (_PROMPT, ("image_path", "file_path"), ("human_preference", "rank", "raw_annotations", "raw_annotation")),
    ),
    "pick_a_pic": Format(
        _pick_a_pic,
        {},
        (_CAPTION, ("label_0",), ("label_1",), ("jpg_0", "image_0_uid"), ("jpg_1", "image_1_uid")),
        (("jpg_0", "image_0_uid"), ("jpg_1", "image_1_uid")),
    ),
    "imagerewarddb": Format(
        _row_an_item("prompt_id", "image_path", "rank", -1),
        {},
        (_PROMPT, ("prompt_id",), ("image_path",), ("rank",)),
    ),
    "rated_items": Format(_row_an_item("group", "item", "", 1), {}),
    "annotations": Format(_annotations, CHOICES, entries=_read_journal),
}
"""Formats by their name in a catalog entry."""
