"""Read scores of public suites by clip, from their own files and from tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.suites.export import MANIFEST
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.storage.tables import left_out, read_entries
from vr_pipeline.storage.values import as_number, as_text

SCORE_COLUMNS: Final = ("suite", "policy", "prompt_id", "prompt", "sample_index", "dimension", "score")
_NUMBERED = re.compile(r"(?P<prompt>.+)-(?P<number>\d+)$")
_PERCENT = 100.0
_SAME = 1e-3


def read_suite_results(
    path: Path, *, suite: str, policy: str, manifest: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Read results of VBench and VBench-2.0: ``{dimension: [score, [{"video_path", "video_results"}, ...]]}``.

    Args:
        path: the file, ``<name>_eval_results.json``.
        suite: name of the suite.
        policy: policy of the clips.
        manifest: of ``kedro export-clips``, with whole prompts; without it, prompts are read from file names.

    Returns:
        the columns of :data:`SCORE_COLUMNS`, one row per clip and dimension. If the score of a dimension is a hundredth
        of the mean of its clips (as for image quality in VBench), clips' scores are divided by 100.

    Raises:
        InputError: the file has another format, a score is not a number, or a clip is unknown.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(
            f"the file cannot be read as JSON ({error})",
            remedy="Give the suite's *_eval_results.json, or a table without --policy and --manifest",
            file=path,
        ) from error
    if not isinstance(content, dict) or not content:
        raise InputError("the file has no dimensions", remedy="Give *_eval_results.json", file=path)
    known = {clip["file"]: (clip["prompt"], clip["sample_index"]) for clip in (manifest or {}).get("clips", ())}
    rows: list[dict[str, Any]] = []
    for dimension, result in content.items():
        if not isinstance(result, list) or len(result) < 2 or not isinstance(result[1], list):
            raise InputError(
                "the dimension has no list of clips",
                remedy="Give the file with every clip's result, not the summary",
                file=path,
                field=dimension,
            )
        own = list(_clips(result[1], dimension, path))
        scale = _scale(result[0], [score for _, score in own])
        for name, score in own:
            prompt, number = known.get(name) or _from_name(name, dimension, path, strict=bool(known))
            rows.append(_row(suite, policy, prompt, number, dimension, score / scale))
    return _table(rows, path)


def _clips(results: list[Any], dimension: str, path: Path) -> Iterator[tuple[str, float]]:
    for number, one in enumerate(results, start=1):
        try:
            values = {key: value for key, value in one.items() if key != "video_path"}
            value = values["video_results"] if "video_results" in values else next(iter(values.values()))
            score = float(value) if isinstance(value, bool) else as_number(value)
            if math.isnan(score):
                raise ValueError("the score is missing")
            yield PurePosixPath(str(one["video_path"]).replace("\\", "/")).name, score
        except (AttributeError, KeyError, StopIteration, ValueError) as error:
            raise InputError(
                f"the result of clip {number} cannot be used ({error})",
                remedy="Give video_path and a number as video_results",
                file=path,
                row=number,
                field=dimension,
            ) from error


def _scale(total: Any, scores: list[float]) -> float:
    """Return the divisor of clips' scores to the scale of their dimension's score."""
    if not scores or isinstance(total, bool) or not isinstance(total, int | float):
        return 1.0
    mean = sum(scores) / len(scores)
    off, percent = abs(mean - total), abs(mean / _PERCENT - total)
    return _PERCENT if percent < _SAME and off > _SAME else 1.0


def _from_name(name: str, dimension: str, path: Path, *, strict: bool) -> tuple[str, int]:
    found = _NUMBERED.fullmatch(PurePosixPath(name).stem)
    if strict or found is None:
        raise InputError(
            f"the clip '{name}' is not in the manifest" if strict else f"'{name}' is not named <prompt>-<number>",
            remedy="Give the results of exported clips, with their manifest",
            file=path,
            field=dimension,
        )
    return found["prompt"], int(found["number"])


def read_score_table(path: Path, *, suite: str) -> pd.DataFrame:
    """Read a table of scores: policy, prompt, dimension, score, and sample_index if a prompt has several clips.

    Returns:
        the columns of :data:`SCORE_COLUMNS`; unusable rows are skipped with a warning.

    Raises:
        InputError: a column is missing, or too many rows are bad.
    """
    entries = read_entries(path)
    needed = {name: entries.find(name) for name in ("policy", "prompt", "dimension", "score")}
    if missing := [name for name, found in needed.items() if found is None]:
        raise InputError(
            f"there is no column '{missing[0]}'",
            remedy="Give policy, prompt, dimension and score, or --policy with a suite's own file of results",
            file=path,
            row=entries.header_row,
            field=missing[0],
        )
    numbered = entries.find("sample_index", "sample")
    problems, rows = entries.problems(), []
    counts: dict[tuple[str, str, str], int] = {}
    for entry in entries.rows:
        if entry.problem:
            continue
        try:
            policy, prompt, dimension = (
                as_text(entry.values.get(needed[key] or "")).strip() for key in ("policy", "prompt", "dimension")
            )
            score = as_number(entry.values.get(needed["score"] or ""))
            if not (policy and prompt and dimension) or math.isnan(score):
                raise ValueError("a cell is empty")
            key = (policy, prompt, dimension)
            counts[key] = counts.get(key, -1) + 1
            number = int(as_number(entry.values.get(numbered))) if numbered else counts[key]
        except ValueError as error:
            problem, remedy = str(error), "Correct the row, or remove it"
            problems.append(InputError(problem, remedy=remedy, file=path, row=entry.row))
            continue
        rows.append(_row(suite, policy, prompt, number, dimension, score))
    left_out(problems, len(entries.rows), what="scores")
    return _table(rows, path)


def read_manifest_of(folder: Path) -> Mapping[str, Any]:
    """Read the manifest of an export. Raises :class:`InputError` if there is none."""
    file = folder / MANIFEST if folder.is_dir() else folder
    try:
        content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        names = [clip["file"] for clip in content["clips"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = "Give a folder written by kedro export-clips"
        raise InputError(f"there is no manifest ({error})", remedy=remedy, file=file) from error
    assert len(set(names)) == len(names)
    return content


def _row(suite: str, policy: str, prompt: str, number: int, dimension: str, score: float) -> dict[str, Any]:
    names = {"suite": suite, "policy": policy, "prompt_id": prompt_id(prompt), "prompt": prompt}
    return {**names, "sample_index": number, "dimension": dimension, "score": score}


def _table(rows: list[dict[str, Any]], path: Path) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    keys = ["suite", "policy", "prompt_id", "sample_index", "dimension"]
    twice = table.duplicated(keys)
    if twice.any():
        row = table[twice].iloc[0]
        raise InputError(
            f"policy {row['policy']}, prompt '{row['prompt']}', clip {row['sample_index']} has two scores",
            remedy="Keep one, or number the clips of the prompt in sample_index",
            file=path,
            field=str(row["dimension"]),
        )
    if not len(table):
        raise InputError("the file has no scores", remedy="Give at least one", file=path)
    return table.sort_values(keys, ignore_index=True, kind="stable")


def merged(before: pd.DataFrame | None, scores: pd.DataFrame) -> pd.DataFrame:
    """Return all scores; new ones replace earlier ones of the same suite, policy and dimension."""
    if before is None:
        return scores
    keys = ["suite", "policy", "dimension"]
    new = set(scores[keys].itertuples(index=False, name=None))
    kept = before[[one not in new for one in before[keys].itertuples(index=False, name=None)]]
    return pd.concat([kept, scores], ignore_index=True).sort_values(
        ["suite", "policy", "prompt_id", "sample_index", "dimension"], ignore_index=True, kind="stable"
    )
