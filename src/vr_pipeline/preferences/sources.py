"""Several files of preferences in one table, each with a format, a folder of clips and a weight."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field, ValidationError

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import pair_id, prompt_id
from vr_pipeline.preferences.clip_names import ClipNames, with_found_clips
from vr_pipeline.preferences.formats import FILE_COLUMNS, read_preferences
from vr_pipeline.statistics.agreement import pairwise_accuracy
from vr_pipeline.storage.tables import read_entries
from vr_pipeline.storage.values import as_text


class Folder(Parameters):
    """A folder of clips."""

    path: str = Field(description="Folder of clips.")


class Source(Parameters):
    """A file of preferences."""

    filepath: str = Field(description="File in one of the formats of docs/rewards.md.")
    format: str = Field("plain", description="Format of the file.")
    videos: Folder = Field(description="Folder of its clips.")
    clips: str | None = Field(
        None, description="Table of video_id and file, if clips are named by identifier; relative like filepath."
    )
    labels: dict[str, str] | None = Field(None, description="Label in the file -> a, b or tie.")
    columns: dict[str, str] | None = Field(None, description="Name known to the reader -> name in the file.")
    criterion: str = Field("Overall", description="Criterion of the label, if the file has several.")
    weight: float = Field(1.0, gt=0, description="Weight of each pair of this file.")


def check_sources(given: Mapping[str, Any]) -> dict[str, Source]:
    """Return the sources of a catalog entry. Raises :class:`InputError` if there are none or one is wrong."""
    if not given:
        raise InputError("there are no sources", remedy="give at least one file of preferences", field="sources")
    found = {}
    for name, one in given.items():
        field, problem = f"sources.{name}", "it is not a mapping"
        try:
            values = dict(one)
            if labels := values.get("labels"):
                values["labels"] = {str(label): meaning for label, meaning in labels.items()}
            found[str(name)] = Source.model_validate(values)
        except (ValidationError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                problem, field = first["msg"], ".".join([field, *map(str, first["loc"])])
            raise InputError(f"a source is wrong: {problem}", remedy="correct it", field=field) from error
    return found


def owners(sources: Mapping[str, Source]) -> dict[str, str]:
    """Return for each source the first one with the same folder, whose clips they share."""
    first: dict[str, str] = {}
    return {name: first.setdefault(source.videos.path, name) for name, source in sources.items()}


def read_sources(sources: Mapping[str, Source], files: Mapping[str, list[str]]) -> pd.DataFrame:
    """Read all files into one table.

    Args:
        sources: by name.
        files: source -> paths of the clips of its folder, relative to it.

    Returns:
        columns of :func:`~vr_pipeline.preferences.formats.read_preferences`, with the name of the source as ``source``,
        its ``weight``, and the name of the first source of the folder as prefix of identifiers and paths.

    Raises:
        InputError: a file cannot be read.
    """
    owner, parts = owners(sources), []
    for name, source in sources.items():
        path = Path(source.filepath)
        table = read_preferences(
            path,
            source.format,
            labels=source.labels,
            columns=source.columns,
            criterion=source.criterion,
            source=name,
        )
        names = ClipNames(Path(source.videos.path), files[name], path.parent)
        if source.clips is not None:
            table = _with_files(table, Path(source.clips))
        table = with_found_clips(table, names)
        begin = owner[name]
        for side in "ab":
            table[f"video_id_{side}"] = begin + "." + table[f"video_id_{side}"].astype(str)
            known = table[f"video_path_{side}"].astype(str)
            table[f"video_path_{side}"] = (begin + "/" + known).where(known != "", "")
        table["pair_id"] = [
            f"{name}.{pair_id(prompt_id(prompt), a, b)}"
            for prompt, a, b in table[["prompt", "video_id_a", "video_id_b"]].itertuples(index=False)
        ]
        parts.append(table.assign(source=name, weight=source.weight))
    return pd.concat(parts, ignore_index=True)


def with_sources(pairs: pd.DataFrame, preferences: pd.DataFrame) -> pd.DataFrame:
    """Return pairs with source and weight from their preferences; the weight is 1 without such a column."""
    first = preferences.drop_duplicates("pair_id").set_index("pair_id")
    weight = pairs["pair_id"].map(first["weight"]).astype(float) if "weight" in first else 1.0
    return pairs.assign(source=pairs["pair_id"].map(first["source"]).astype(str), weight=weight)


def by_source(scores: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the agreement on held-out pairs by source, from source, split, difference and preference of pairs."""
    held_out = scores[scores["split"] == "held_out"]
    return {
        str(name): pairwise_accuracy(own["difference"], list(own["preference"])).to_json()
        for name, own in held_out.groupby("source", sort=True)
    }


def _with_files(table: pd.DataFrame, clips: Path) -> pd.DataFrame:
    """Return preferences with files of clips named by identifier, from a table."""
    entries = read_entries(clips)
    columns = [entries.find(name) for name in ("video_id", "file")]
    if missing := [name for name, found in zip(("video_id", "file"), columns, strict=True) if found is None]:
        raise InputError(f"column '{missing[0]}' is missing", remedy="add it", file=clips, field=missing[0])
    file_of = {
        as_text(entry.values.get(columns[0] or "")): as_text(entry.values.get(columns[1] or ""))
        for entry in entries.rows
        if not entry.problem
    }
    for side in "ab":
        paths, named = table[f"video_path_{side}"], table[f"video_id_{side}"]
        table[f"video_path_{side}"] = paths.where(paths != "", named.map(lambda name: file_of.get(str(name), "")))
    assert set(FILE_COLUMNS) <= set(table.columns)
    return table
