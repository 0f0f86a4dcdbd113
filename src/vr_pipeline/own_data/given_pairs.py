"""Checks of users' existing pairs: format of the file, usable pairs, and reasons why others are not usable."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.own_data.findings import Findings
from vr_pipeline.pairs import given
from vr_pipeline.pairs.config import GivenPairsParameters
from vr_pipeline.preferences.clip_names import ClipNames, with_found_clips
from vr_pipeline.preferences.detection import detect_format
from vr_pipeline.preferences.embedded import write_embedded
from vr_pipeline.preferences.formats import FORMATS, examine_preferences
from vr_pipeline.preferences.segments import COLUMN as SEGMENTS
from vr_pipeline.preferences.winners import prompts_of_folders
from vr_pipeline.storage.tables import are_few, bad_rows, read_entries

_FEW_PROMPTS = 10
_FEW_PAIRS = 30


@dataclass(frozen=True)
class PairFiles:
    """The user's files and options.

    Args:
        pairs: a file, or a folder of two folders.
        videos: the folder of the clips; None finds it by the names in the file.
        options: format (None detects it), labels, columns and criterion of the reader.
        fit: settings of :class:`vr_pipeline.video.fit.FitParameters` that replace the configured ones.
    """

    pairs: Path
    videos: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fit: Mapping[str, str] = field(default_factory=dict)


@dataclass
class CheckedPairs:
    """The result of the check.

    Args:
        findings: errors and warnings.
        format: of the file.
        folder: of the clips.
        embedded: the file contains the clips, which have to be written to the folder first.
        scattered: the clips have no common folder within the project, so they have to be copied.
        table: the usable rows, with video_path_a and video_path_b relative to the folder.
        report: :func:`vr_pipeline.pairs.given.pairs_report`; None if nothing could be checked.
        rows, rows_left_out: numbers of all rows and of unusable ones.
        reward_settings: names of reward settings of the base environment.
    """

    findings: Findings = field(default_factory=Findings)
    format: str = ""
    folder: Path | None = None
    embedded: bool = False
    scattered: bool = False
    table: pd.DataFrame | None = None
    report: dict[str, Any] | None = None
    rows: int = 0
    rows_left_out: int = 0
    reward_settings: tuple[str, ...] = ()


def check_given_pairs(
    files: PairFiles,
    generator: GeneratorParameters,
    parameters: GivenPairsParameters,
    *,
    project: Path,
    unpacked: Path,
) -> CheckedPairs:
    """Read pairs, find and decode their clips, and count the usable ones.

    Args:
        files: the user's files.
        generator: determines size and number of frames.
        parameters: rules to fit clips and to hold out prompts.
        project: its folder, which is never used as a folder of clips.
        unpacked: folder for clips within the file.
    """
    check = CheckedPairs()
    try:
        check.format = files.options.get("format") or detect_format(files.pairs)
        table = _read(check, files)
    except InputError as error:
        check.findings.raised(error)
        return check
    if table is None or not len(table):
        return check
    try:
        names = _names(check, files, table, project, unpacked)
    except InputError as error:
        check.findings.raised(error)
        return check
    table = with_found_clips(table, names)
    check.table = table
    _missing_clips(check, files, table, names)
    _examine(check, files, table, names, generator, parameters)
    return check


def _read(check: CheckedPairs, files: PairFiles) -> pd.DataFrame | None:
    """Read the rows; bad ones become findings."""
    options = {name: value for name, value in files.options.items() if name != "format"}
    table, problems = examine_preferences(files.pairs, check.format, **options)
    check.rows = table.attrs.get("entries", 0)
    columns = dict(zip(("video_path_a", "video_path_b"), _fields(check.format), strict=True))
    for problem in problems:
        problem.field = columns.get(str(problem.field), problem.field)
    if are_few(problems, check.rows):
        for problem in problems:
            problem.problem = f"the row is left out: {problem.problem}"
            check.findings.raised(problem, "warning")
        check.rows_left_out = len(bad_rows(problems))
        return table[~table.index.isin(list(bad_rows(problems)))]
    for problem in problems:
        check.findings.raised(problem)
    return None


def _names(check: CheckedPairs, files: PairFiles, table: pd.DataFrame, project: Path, unpacked: Path) -> ClipNames:
    """Find the folder of the clips, and return its files under all their names."""
    from vr_pipeline.datasets.clips import ClipFolder

    columns = FORMATS[check.format].embedded
    near = files.pairs if files.pairs.is_dir() else files.pairs.parent
    if files.videos is None and columns and write_embedded(read_entries(files.pairs), columns, unpacked):
        check.embedded, check.folder = True, unpacked
        return ClipNames(unpacked, ClipFolder(unpacked), near)
    if files.videos is not None:
        check.folder = files.videos
    elif files.pairs.is_dir():
        check.folder = files.pairs
    else:
        found = _existing(table, near)
        if not found and check.format == "annotations":
            raise InputError(
                "the journal does not name the folder of its clips",
                remedy="give the folder with --videos",
                file=files.pairs,
            )
        if not found:
            first = table["video_path_a"].iloc[0] or table["video_id_a"].iloc[0]
            raise InputError(
                f"none of the clips exists, for instance '{first}'",
                remedy="give the folder to which the names are relative with --videos FOLDER",
                file=files.pairs,
            )
        check.folder = Path(os.path.commonpath([path.parent for path in found]))
        check.scattered = project.resolve().is_relative_to(check.folder)
        if check.scattered:
            relative = sorted({path.relative_to(check.folder).as_posix() for path in found})
            return ClipNames(check.folder, relative, near)
    if not check.folder.is_dir():
        raise InputError(
            "the folder of clips does not exist", remedy="correct the path given with --videos", file=check.folder
        )
    return ClipNames(check.folder, ClipFolder(check.folder), near)


def _existing(table: pd.DataFrame, near: Path) -> list[Path]:
    """Return the existing files of the table's paths, relative to the table's folder or the working directory."""
    named = {name for side in "ab" for name in table[f"video_path_{side}"] if name}
    found = []
    for name in sorted(named):
        path = next((one for one in (near / name, Path(name)) if one.is_file()), None)
        if path is not None:
            found.append(path.absolute().resolve())
    return found


def _fields(format: str) -> tuple[str, str]:
    """Return the columns of a file's two clips, for messages."""
    if format == "folders":
        return "w", "l"
    columns = FORMATS[format].columns if format in FORMATS else ()
    return (columns[-2][0], columns[-1][0]) if len(columns) > 2 else ("clip a", "clip b")


def _missing_clips(check: CheckedPairs, files: PairFiles, table: pd.DataFrame, names: ClipNames) -> None:
    for side, column in zip("ab", _fields(check.format), strict=True):
        named = table[f"video_path_{side}"].where(table[f"video_path_{side}"] != "", table[f"video_id_{side}"])
        for row, name in zip(table.index, named, strict=True):
            if names.find(name) is None:
                problem, remedy = names.why_not(name)
                remedy = f"the pair is left out unless you {remedy}"
                check.findings.warning(problem, remedy, files.pairs, int(row), column)


def _examine(
    check: CheckedPairs,
    files: PairFiles,
    table: pd.DataFrame,
    names: ClipNames,
    generator: GeneratorParameters,
    parameters: GivenPairsParameters,
) -> None:
    """Process pairs and clips as a run would, and report the unusable ones."""
    folder = {name: names.folder / name for name in names.files}
    try:
        pairs = given.decide_pairs(table)
        clips = given.examine_clips(table, pairs, folder, generator, parameters.fit)
    except InputError as error:
        check.findings.raised(error)
        return
    rows = table.groupby("pair_id").apply(lambda part: [int(row) for row in part.index])
    for pair in pairs[pairs["contradicted"]].to_dict("records"):
        what = "the annotators contradict each other about these two clips"
        then = "the pair counts as a tie and is left out" if pair["status"] == given.TIE else "the majority counts"
        for row in rows[pair["pair_id"]]:
            check.findings.warning(what, then, files.pairs, row)
    for clip in clips[(clips["status"] != "ok") & (clips["num_frames"] >= 0)].to_dict("records"):
        if clip["path"] in folder:
            remedy = "its pairs are left out unless you replace it"
            check.findings.warning(f"the clip cannot be used: {clip['error']}", remedy, folder[clip["path"]])
    try:
        pairs = given.keep_usable(pairs, clips)
    except InputError as error:
        check.findings.error(error.problem, "correct the file or the clips", files.pairs)
        return
    for pair in pairs[pairs["status"] == given.SAME_CLIP].to_dict("records"):
        for row in rows[pair["pair_id"]]:
            check.findings.warning(pair["reason"], "the pair is left out", files.pairs, row, _fields(check.format)[1])
    prompts = given.divide_prompts(pairs, parameters.held_out)
    check.report = given.pairs_report(pairs, clips, prompts)
    kept, number = check.report["pairs"]["kept"], len(prompts)
    if kept < _FEW_PAIRS or number < _FEW_PROMPTS:
        check.findings.warning(
            f"{kept} pair(s) of {number} prompt(s) are few: a policy may overfit",
            "start with some hundred pairs for a hundred prompts",
            files.pairs,
        )


def pairs_lines(check: CheckedPairs, files: PairFiles) -> dict[str, str]:
    """Return facts about the pairs as name -> line."""
    lines = {"pairs": f"yours: {files.pairs} (read as {check.format})"}
    report = check.report
    if report is None:
        return lines
    pairs, prompts, clips = report["pairs"], report["prompts"], report["clips"]
    aside = pairs["same_clip"] + pairs["clip_failed"]
    rows = f"{check.rows} rows" + (f" of which {check.rows_left_out} are left out" if check.rows_left_out else "")
    lines["counts"] = (
        f"{rows}, {pairs['given']} pairs: {pairs['kept']} usable, {pairs['tie']} ties dropped, {aside} set aside"
    )
    if pairs["several_votes"] or pairs["contradicted"]:
        lines["annotators"] = (
            f"{pairs['votes']} votes; {pairs['several_votes']} pairs have several (the majority counts), "
            f"{pairs['contradicted']} are contradicted"
        )
    if check.table is not None and SEGMENTS in check.table:
        labelled = int((check.table[SEGMENTS] != "").sum())
        lines["segments"] = f"{labelled} rows have preferences by segment (for loss: segment_dpo)"
    if check.format == "folders":
        lines["captions"] = prompts_of_folders(files.pairs)
    lines["prompts"] = (
        f"{sum(prompts.values())}: {prompts['train']} for training, {prompts['validation']} for validation, "
        f"{prompts['test']} for the evaluation"
    )
    sizes = [f"{size} ({count})" for size, count in clips["sizes"].items()]
    more = f" and {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    place = files.pairs if check.embedded else check.folder
    lines["clips"] = (
        f"{clips['given']} in {place}, {clips['failed']} set aside; frames x height x width: "
        f"{', '.join(sizes[:3])}{more}"
    )
    changes = [f"{count} {kind}" for kind, count in clips["changes"].items()]
    lines["fitting"] = ", ".join(changes)
    return lines
