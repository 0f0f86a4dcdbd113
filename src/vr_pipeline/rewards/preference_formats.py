"""Readers of the files in which human preferences come, into one table; writers of the lists other trainers read.

Every reader gives the columns of :class:`vr_pipeline.schemas.HumanPreferences`, and beside them ``video_path_a``,
``video_path_b``, ``generator_a`` and ``generator_b`` (empty where the file does not say). A clip given as a file gets
an identifier from its prompt and its path as written. Labels outside the map of the format are refused with their row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.entries import read_entries
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import pair_id, prompt_id, video_id
from vr_pipeline.storage import write_text

PREFERENCE_COLUMNS = ("pair_id", "prompt", "video_id_a", "video_id_b", "preference", "annotator", "source")
FILE_COLUMNS = ("video_path_a", "video_path_b", "generator_a", "generator_b")

_DEFAULT_LABELS: dict[str, dict[str, str] | None] = {
    "plain": {"a": "a", "b": "b", "tie": "tie"},
    "visionreward": None,  # the values of standard_answer are not documented: the user has to say what they mean
    "videogen_rewardbench": {"A": "a", "B": "b", "same": "tie"},
    "annotations": {"left": "a", "right": "b", "tie": "tie", "both_bad": "tie"},
    "genai_bench": {"leftvote": "a", "rightvote": "b", "tievote": "tie", "bothbad_vote": "tie"},
}


def read_preferences(
    path: str | Path,
    format: str = "plain",  # the word of the catalog entry
    *,
    labels: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    criterion: str = "Overall",
    source: str | None = None,
) -> pd.DataFrame:
    """Reads a file of preferences.

    Args:
        path: CSV (or TSV), JSON, JSON lines or parquet, by its suffix.
        format: one of :data:`FORMATS`.
        labels: label in the file -> ``a``, ``b`` or ``tie``, in place of the format's own map.
        columns: name this reader knows -> name in the file, where they differ.
        criterion: column of the label (videogen_rewardbench: Overall, VQ, MQ or TA) or of the rating (rated_items), or
            what was asked (annotations: Overall or the name of a dimension).
        source: what the column ``source`` says; the format's name without it.

    Returns:
        One row a pair and annotator, in file order; ``attrs["skipped"]`` counts entries that hold no preference.

    Raises:
        InputError: the file is empty or cannot be read, a column is missing, a label is unknown, a prompt is empty.
    """
    material = _open(path, format, labels=labels, columns=columns, criterion=criterion)
    result = _table(_READERS[format](material), material, source or format)
    if not len(result):
        raise InputError(
            f"none of the {len(material.table)} entries holds a preference",
            remedy="Check the file and its format",
            file=path,
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
    """Reads as :func:`read_preferences` does, and goes on after everything that it would refuse.

    Args are those of :func:`read_preferences`.

    Returns:
        the table, with values that stand in where the file has none (empty if a column is missing), and the problems;
        rows are judged once all columns are there. In the plain format the table's index is the place in the file.
    """
    nothing = pd.DataFrame(columns=[*PREFERENCE_COLUMNS, *FILE_COLUMNS])
    problems: list[InputError] = []
    try:
        material = _open(path, format, labels=labels, columns=columns, criterion=criterion, problems=problems)
    except InputError as error:
        return nothing, problems or [error]
    material.problems = problems
    rows = _READERS[format](material)
    if not rows and not material.problems:
        material.problems.append(
            InputError("no entry holds a preference", remedy="Check the file and its format", file=path)
        )
    of_file = [problem for problem in material.problems if problem.row is None]
    if of_file:
        return nothing, of_file
    return _table(rows, material, format), material.problems


def _table(rows: list[dict[str, Any]], material: _Source, source: str) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[*PREFERENCE_COLUMNS, *FILE_COLUMNS, *material.further_columns])
    table["source"] = table["source"].where(table["source"] != "", source)
    table.attrs["skipped"] = material.skipped
    if len(table) == len(material.table):
        table.index = material.table.index
    return table


def _open(
    path: str | Path,
    format: str,
    *,
    labels: Mapping[str, str] | None,
    columns: Mapping[str, str] | None,
    criterion: str,
    problems: list[InputError] | None = None,
) -> _Source:
    if format not in _READERS:
        raise InputError(
            f"unknown format '{format}'", remedy=f"Use one of {', '.join(_READERS)}", field="format", file=path
        )
    label_map = dict(labels) if labels is not None else _DEFAULT_LABELS.get(format)
    wrong = sorted(set((label_map or {}).values()) - {"a", "b", "tie"})
    if wrong:
        raise InputError(
            f"the label map leads to '{wrong[0]}'", remedy="Map every label to a, b or tie", field="labels", file=path
        )
    table, first_row = (
        _read_journal(Path(path)) if format == "annotations" else read_entries(Path(path), problems=problems)
    )
    if not len(table):
        raise InputError("there are no preferences in the file", remedy="Give one or more rows", file=path)
    return _Source(Path(path), table, first_row, label_map, dict(columns or {}), criterion)


class _Source:
    """A file's table with what its reader needs to name places in it.

    A problem stops the reading, unless ``problems`` is a list: then it is added there and the reading goes on with a
    value that stands in.
    """

    def __init__(
        self,
        path: Path,
        table: pd.DataFrame,
        first_row: int,
        labels: dict[str, str] | None,
        columns: dict[str, str],
        criterion: str,
    ) -> None:
        self.path, self.table, self.first_row = path, table, first_row
        self.labels, self.columns, self.criterion = labels, columns, criterion
        self.skipped = 0
        self.further_columns: list[str] = []
        self.problems: list[InputError] | None = None

    def refuse(self, problem: InputError) -> None:
        """Raise the problem, or note it where problems are collected."""
        if self.problems is None:
            raise problem
        self.problems.append(problem)

    def column(self, *names: str, required: bool = True) -> list[Any]:
        """Values of the first of the columns that the file has; empty strings where none is there and none need be."""
        for name in names:
            actual = self.columns.get(name, name)
            if actual in self.table.columns:
                return list(self.table[actual])
        if required:
            self.refuse(
                InputError(
                    f"the file has no column '{self.columns.get(names[0], names[0])}' (it has: "
                    f"{', '.join(str(name) for name in list(self.table.columns)[:20])})",
                    remedy="Choose the format that fits, or name the column under 'columns' (kedro init-data: "
                    f"--column {names[0]}=COLUMN)",
                    field=names[0],
                    file=self.path,
                )
            )
        return [""] * len(self.table)

    def has(self, name: str) -> bool:
        return self.columns.get(name, name) in self.table.columns

    def error(self, problem: str, *, position: int, field: str, remedy: str) -> InputError:
        row = int(self.table.index[position]) + self.first_row
        return InputError(problem, remedy=remedy, file=self.path, row=row, field=field)

    def label(self, value: Any, *, position: int, field: str) -> str:
        key = _text(value)
        if self.labels is not None and key in self.labels:
            return self.labels[key]
        if self.labels is None:
            problem = f"the meaning of label '{value}' is not documented for this format"
            remedy = "Give 'labels', for example {'1': a, '2': b, '0': tie}, after checking some pairs by eye"
        else:
            problem = f"unknown label '{key}'" if key else "the label is empty"
            remedy = (
                "Correct it or map it under 'labels' (kedro init-data: --label LABEL=MEANING; known: "
                f"{', '.join(self.labels)})"
            )
        self.refuse(self.error(problem, position=position, field=field, remedy=remedy))
        return "tie"

    def numbers(self, value: Any, *, position: int, field: str, length: int) -> list[float]:
        try:
            result = [float(number) for number in value]
        except (TypeError, ValueError):
            result = []
        if len(result) != length or any(np.isnan(number) for number in result):
            problem = f"{field} does not hold {length} numbers"
            self.refuse(self.error(problem, position=position, field=field, remedy="Correct the entry"))
            return [0.0] * length
        return result

    def row(
        self,
        *,
        position: int,
        prompt: Any,
        files: tuple[Any, Any],
        preference: str,
        annotator: Any = "",
        generators: tuple[Any, Any] = ("", ""),
        source: Any = "",
        identifiers: tuple[Any, Any] | None = None,
        pair: Any = "",
    ) -> dict[str, Any]:
        text = _text(prompt)
        if not text.strip():
            self.refuse(self.error("the prompt is empty", position=position, field="prompt", remedy="Give the prompt"))
        paths = tuple(_text(file) for file in files)
        if identifiers is None:
            ids = tuple(file_identifier(text, path) if path else "" for path in paths)
        else:
            ids = tuple(_text(identifier) for identifier in identifiers)
        kind = "video_id" if identifiers is not None else "video_path"
        for identifier, side in zip(ids, "ab", strict=True):
            if not identifier:
                self.refuse(
                    self.error(
                        f"clip {side} is not named", position=position, field=f"{kind}_{side}", remedy="Name both clips"
                    )
                )
        if ids[0] == ids[1] and ids[0]:
            self.refuse(
                self.error(
                    "a clip is compared with itself", position=position, field=f"{kind}_b", remedy="Correct the pair"
                )
            )
        return {
            "pair_id": _text(pair) or pair_id(prompt_id(text), ids[0], ids[1]),
            "prompt": text,
            "video_id_a": ids[0],
            "video_id_b": ids[1],
            "preference": preference,
            "annotator": _text(annotator),
            "source": _text(source),
            "video_path_a": paths[0],
            "video_path_b": paths[1],
            "generator_a": _text(generators[0]),
            "generator_b": _text(generators[1]),
        }


def file_identifier(prompt: str, path: str) -> str:
    """Identifier of a clip that is given as a file, from its prompt and its path as written."""
    return video_id(prompt_id(prompt), 0, path)


def _plain(source: _Source) -> list[dict[str, Any]]:
    by_identifier = source.has("video_id_a") or not source.has("video_path_a")
    identifiers = (
        list(zip(source.column("video_id_a"), source.column("video_id_b"), strict=True)) if by_identifier else None
    )
    paths = list(
        zip(
            source.column("video_path_a", required=not by_identifier),
            source.column("video_path_b", required=not by_identifier),
            strict=True,
        )
    )
    return [
        source.row(
            position=i,
            prompt=prompt,
            files=paths[i],
            identifiers=identifiers[i] if identifiers is not None else None,
            preference=source.label(label, position=i, field="preference"),
            annotator=annotator,
            source=origin,
            pair=pair,
            generators=generators,
        )
        for i, (prompt, label, annotator, origin, pair, generators) in enumerate(
            zip(
                source.column("prompt"),
                source.column("preference"),
                source.column("annotator", required=False),
                source.column("source", required=False),
                source.column("pair_id", required=False),
                zip(
                    source.column("generator_a", required=False),
                    source.column("generator_b", required=False),
                    strict=True,
                ),
                strict=True,
            )
        )
    ]


def _visionreward(source: _Source) -> list[dict[str, Any]]:
    rows = zip(
        source.column("prompt"),
        source.column("video1_path", "image1_path"),
        source.column("video2_path", "image2_path"),
        source.column("standard_answer"),
        strict=True,
    )
    return [
        source.row(
            position=i,
            prompt=prompt,
            files=(first, second),
            preference=source.label(answer, position=i, field="standard_answer"),
        )
        for i, (prompt, first, second, answer) in enumerate(rows)
    ]


def _videogen_rewardbench(source: _Source) -> list[dict[str, Any]]:
    rows = zip(
        source.column("prompt"),
        source.column("path_A"),
        source.column("path_B"),
        source.column(source.criterion),
        source.column("A_model", required=False),
        source.column("B_model", required=False),
        strict=True,
    )
    return [
        source.row(
            position=i,
            prompt=prompt,
            files=(first, second),
            preference=source.label(label, position=i, field=source.criterion),
            generators=(first_model, second_model),
        )
        for i, (prompt, first, second, label, first_model, second_model) in enumerate(rows)
    ]


def _genai_bench(source: _Source) -> list[dict[str, Any]]:
    rows = zip(
        source.column("prompt"),
        source.column("left_video", "video_left"),
        source.column("right_video", "video_right"),
        source.column("vote_type"),
        source.column("left_model", required=False),
        source.column("right_model", required=False),
        strict=True,
    )
    return [
        source.row(
            position=i,
            prompt=prompt,
            files=(left, right),
            preference=source.label(vote, position=i, field="vote_type"),
            generators=(left_model, right_model),
        )
        for i, (prompt, left, right, vote, left_model, right_model) in enumerate(rows)
    ]


def _hpdv2(source: _Source) -> list[dict[str, Any]]:
    """Training lists have one preferred image of two (human_preference); test lists rank several (lower is better).

    Of a test entry the ranking of every annotator is taken where it is given, the averaged one otherwise.
    """
    prompts = source.column("prompt")
    result: list[dict[str, Any]] = []
    if source.has("human_preference"):
        rows = zip(
            prompts,
            source.column("file_path", "image_path"),
            source.column("human_preference"),
            source.column("user_hash", required=False),
            strict=True,
        )
        for i, (prompt, files, chosen, annotator) in enumerate(rows):
            values = source.numbers(chosen, position=i, field="human_preference", length=len(files))
            result += _pairs_of(source, i, prompt, files, [-value for value in values], annotator=annotator)
        return result
    raw = next((name for name in ("raw_annotations", "raw_annotation") if source.has(name)), None)
    annotations = source.column(raw) if raw else [[]] * len(prompts)
    ranks = source.column("rank", required=raw is None)
    for i, (prompt, files) in enumerate(zip(prompts, source.column("image_path", "file_path"), strict=True)):
        if not len(annotations[i]):
            values = source.numbers(ranks[i], position=i, field="rank", length=len(files))
            result += _pairs_of(source, i, prompt, files, values)
        for k, one in enumerate(annotations[i]):
            entry = one if isinstance(one, Mapping) else {"rank": one}
            values = source.numbers(entry.get("rank"), position=i, field=str(raw), length=len(files))
            annotator = _text(entry.get("user_hash")) or f"annotator {k + 1}"
            result += _pairs_of(source, i, prompt, files, values, annotator=annotator)
    return result


def _pick_a_pic(source: _Source) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    labelled = source.column("has_label") if source.has("has_label") else [True] * len(source.table)
    rows = zip(
        source.column("caption"),
        source.column("image_0_uid", "jpg_0"),
        source.column("image_1_uid", "jpg_1"),
        source.column("label_0"),
        source.column("label_1"),
        source.column("model_0", required=False),
        source.column("model_1", required=False),
        source.column("user_id", required=False),
        labelled,
        strict=True,
    )
    known: dict[tuple[float, ...], str] = {(1.0, 0.0): "a", (0.0, 1.0): "b", (0.5, 0.5): "tie"}
    for i, (prompt, first, second, label_0, label_1, model_0, model_1, user, has_label) in enumerate(rows):
        if not has_label or _text(has_label).lower() in ("false", "0", "0.0"):
            source.skipped += 1
            continue
        label = tuple(source.numbers((label_0, label_1), position=i, field="label_0", length=2))
        if label not in known:
            source.refuse(
                source.error(
                    f"unknown labels {label_0} and {label_1}",
                    position=i,
                    field="label_0",
                    remedy="Use 1 and 0, 0 and 1, or 0.5 and 0.5",
                )
            )
        files = tuple(_image_name(image) for image in (first, second))
        result.append(
            source.row(
                position=i,
                prompt=prompt,
                files=(files[0], files[1]),
                preference=known.get(label, "tie"),
                annotator=user,
                generators=(model_0, model_1),
            )
        )
    return result


def _imagerewarddb(source: _Source) -> list[dict[str, Any]]:
    return _pairs_in_groups(source, "prompt_id", "image_path", "rank", lower_is_better=True)


def _rated_items(source: _Source) -> list[dict[str, Any]]:
    """One row an item: ``group``, ``prompt``, ``item`` (file) and a rating where higher is better; equal is a tie.

    A column ``score`` (mapped under 'columns') comes along as score_a and score_b.
    """
    return _pairs_in_groups(source, "group", "item", source.criterion, lower_is_better=False)


def _annotations(source: _Source) -> list[dict[str, Any]]:
    """Answers given on the annotation page; of the criteria that were asked, one is taken.

    The columns both_bad, criterion, seconds and annotated_at come along.
    """
    source.further_columns += ["both_bad", "criterion", "seconds", "annotated_at"]
    result: list[dict[str, Any]] = []
    for i, entry in enumerate(source.table.to_dict("records")):
        if str(entry["criterion"]).casefold() != source.criterion.casefold():
            source.skipped += 1
            continue
        row = source.row(
            position=i,
            prompt=entry["prompt"],
            files=(entry["left_file"], entry["right_file"]),
            identifiers=(entry["left"], entry["right"]),
            preference=source.label(entry["choice"], position=i, field="choice"),
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
        result.append(row)
    return result


def _pairs_in_groups(
    source: _Source, group_column: str, file_column: str, value_column: str, *, lower_is_better: bool
) -> list[dict[str, Any]]:
    prompts, files = source.column("prompt"), source.column(file_column)
    scores = source.column("score") if source.has("score") else None
    if scores is not None:
        source.further_columns += ["score_a", "score_b"]
    values = [
        source.numbers([value], position=i, field=value_column, length=1)[0]
        for i, value in enumerate(source.column(value_column))
    ]
    groups: dict[str, list[int]] = {}
    for i, group in enumerate(source.column(group_column)):
        groups.setdefault(_text(group), []).append(i)
    result: list[dict[str, Any]] = []
    for members in groups.values():
        for i, j in combinations(members, 2):
            worse = values[i] - values[j] if lower_is_better else values[j] - values[i]
            row = source.row(
                position=j,
                prompt=prompts[i],
                files=(files[i], files[j]),
                preference="tie" if worse == 0 else ("b" if worse > 0 else "a"),
            )
            if scores is not None:
                row["score_a"], row["score_b"] = float(scores[i]), float(scores[j])
            result.append(row)
    return result


def _pairs_of(
    source: _Source, position: int, prompt: Any, files: Sequence[Any], ranks: Sequence[float], annotator: Any = ""
) -> list[dict[str, Any]]:
    """All pairs of one entry that lists files with their ranks (lower is better, equal is a tie)."""
    return [
        source.row(
            position=position,
            prompt=prompt,
            files=(files[i], files[j]),
            preference="tie" if ranks[i] == ranks[j] else ("a" if ranks[i] < ranks[j] else "b"),
            annotator=annotator,
        )
        for i, j in combinations(range(len(files)), 2)
    ]


def _image_name(image: Any) -> str:
    """A file name or identifier; embedded images (bytes) are named by their content."""
    from vr_pipeline.identifiers import content_hash

    if isinstance(image, Mapping):
        image = image.get("path") or image.get("bytes")
    return f"embedded/{content_hash('image', image)}" if isinstance(image, bytes) else _text(image)


def _text(value: Any) -> str:
    """Values as text: missing is empty, 1.0 is '1'."""
    if value is None or (isinstance(value, float) and np.isnan(value)) or value is pd.NA:
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _read_journal(path: Path) -> tuple[pd.DataFrame, int]:
    """Standing answers of an annotation journal; messages count answers, since lines may be taken back."""
    from vr_pipeline.annotation.store import standing_labels

    return pd.DataFrame(standing_labels(path)), 1


_READERS: dict[str, Callable[[_Source], list[dict[str, Any]]]] = {
    "plain": _plain,
    "visionreward": _visionreward,
    "videogen_rewardbench": _videogen_rewardbench,
    "genai_bench": _genai_bench,
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
