"""Given clips that are not compared yet, and their prompts."""

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import first_spellings, normalise_prompt
from vr_pipeline.preferences.clip_names import ClipNames
from vr_pipeline.preferences.rows import file_identifier
from vr_pipeline.prompts.read import find_prompts
from vr_pipeline.prompts.segments import runs
from vr_pipeline.storage.tables import read_entries
from vr_pipeline.storage.values import as_text

CLIP_COLUMNS = ("video_path", "video", "file", "clip", "video_id")
"""Names of the column of clips, in order of preference and any case."""
_NUMBER_AT_END = re.compile(r" \d+$")


def examine_given_clips(
    path: Path, names: ClipNames, files: Sequence[str], *, prompt_column: str | None = None
) -> tuple[pd.DataFrame, list[InputError], list[str]]:
    """Find the prompt of each clip, and collect all problems.

    A table with one of :data:`CLIP_COLUMNS` has one row per clip; an empty cell is a prompt without clips. Otherwise
    (and in a text file, one prompt per line) clips are named by their prompt, with a number if there are several, such
    as ``a red fox-0.mp4`` in VBench (Huang et al. 2023), ignoring case and punctuation.

    Args:
        path: the table of prompts; see :func:`vr_pipeline.storage.tables.read_entries`.
        names: the clips of a folder.
        files: their paths relative to it.
        prompt_column: the column of prompts; None finds it by name.

    Returns:
        video_id, prompt, file, sample_index (within a prompt), seed (0, unknown) and generator ('given' if unknown), in
        table order; the problems; and the files without prompt.
    """
    entries = read_entries(path)
    try:
        column = find_prompts(entries, prompt_column)
        named, by = entries.find(*CLIP_COLUMNS), entries.find("generator")
    except InputError as error:
        return _table([]), [error], list(files)
    problems = entries.problems()
    good = [entry for entry in entries.rows if not entry.problem]
    texts = [entry.values.get(column) for entry in good]
    prompts = first_spellings([text.strip() if isinstance(text, str) else "" for text in texts], normalise_prompt)
    found: list[tuple[str, str, str]] = []
    if named is None:
        found = [(prompt, file, "given") for prompt, file in _by_file_name(prompts, files)]
    else:
        for entry, prompt in zip(good, prompts, strict=True):
            try:
                clip = _clip_of(entry.values.get(named), prompt, names, named)
                given = entry.values.get(by) if by else None
                generator = given if isinstance(given, str) else ""
            except InputError as error:
                problems.append(error.at(file=path, row=entry.row))
            else:
                if clip:
                    found.append((prompt, clip, generator or "given"))
    found = list(dict.fromkeys(found))
    taken = {file for _, file, _ in found}
    return _table(found), problems, [file for file in files if file not in taken]


def read_given_clips(
    path: Path, names: ClipNames, files: Sequence[str], *, prompt_column: str | None = None
) -> pd.DataFrame:
    """Return the table of :func:`examine_given_clips`.

    Raises:
        InputError: the file cannot be read, a clip is missing, or no clip has a prompt.
    """
    table, problems, _ = examine_given_clips(path, names, files, prompt_column=prompt_column)
    if problems:
        raise problems[0]
    if not len(table):
        raise no_clip_of_a_prompt(path, names.folder)
    return table


def no_clip_of_a_prompt(path: Path, folder: Path) -> InputError:
    """Return the error for a folder in which no clip has a prompt."""
    return InputError(
        f"no clip of {folder} has one of the prompts",
        remedy="add a column video_path with one row per clip, or name the files by their prompts ('a red fox-0.mp4')",
        file=path,
        field=CLIP_COLUMNS[0],
    )


def _clip_of(value: object, prompt: str, names: ClipNames, column: str) -> str | None:
    """Return the clip of a cell; None for an empty one. Raises :class:`InputError` without such a clip or prompt."""
    try:
        name = as_text(value)
    except ValueError as error:
        raise InputError(f"the value {error}", remedy="correct it", field=column) from None
    if not name.strip():
        return None
    if not prompt:
        raise InputError("the prompt is empty", remedy="add it", field="prompt")
    file = names.find(name)
    if file is None:
        problem, remedy = names.why_not(name)
        raise InputError(problem, remedy=remedy, field=column)
    return file


def _by_file_name(prompts: Sequence[str], files: Sequence[str]) -> list[tuple[str, str]]:
    """Return prompt and file of all files named by a prompt, in prompt order."""
    by_words = {_words(prompt): prompt for prompt in reversed(prompts) if prompt}
    owned: dict[str, list[str]] = {}
    for file in files:
        stem = _words(Path(file).stem)
        # Try the whole name first: a prompt can end in a number.
        prompt = by_words.get(stem) or by_words.get(_NUMBER_AT_END.sub("", stem))
        if prompt is not None:
            owned.setdefault(prompt, []).append(file)
    return [(prompt, file) for prompt in dict.fromkeys(prompts) for file in owned.get(prompt, [])]


def _words(text: str) -> str:
    """Return letters, marks and digits of any script in one form, with single spaces for the rest."""
    return " ".join(runs(text))


def _table(found: Sequence[tuple[str, str, str]]) -> pd.DataFrame:
    prompts, files, generators = ([row[place] for row in found] for place in range(3))
    table = pd.DataFrame(
        {
            "video_id": [file_identifier(prompt, file) for prompt, file, _ in found],
            "prompt": prompts,
            "file": files,
            "generator": generators,
        },
        dtype=object,
    )
    table["sample_index"] = table.groupby("prompt").cumcount().astype("int64")
    table["seed"] = 0
    return table[["video_id", "prompt", "file", "sample_index", "seed", "generator"]]
