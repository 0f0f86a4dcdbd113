"""Clips of suites: prompts, numbers, and the file names that their scripts expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from vr_pipeline.errors import InputError
from vr_pipeline.storage.tables import Entry, read_entries
from vr_pipeline.storage.values import as_text, is_missing

_LONGEST_NAME = 255
"""Longest file name of usual file systems, in bytes."""


class Suite(NamedTuple):
    """A suite.

    Args:
        name: for users.
        clips: clips per prompt.
        more_clips: dimension -> clips per prompt, if more.
        longest_prompt: characters of the prompt in the file name; None for all.
        source: publication of the rules.
    """

    name: str
    clips: int
    more_clips: Mapping[str, int] = {}
    longest_prompt: int | None = None
    source: str = ""

    def file_name(self, prompt: str, number: int) -> str:
        """Return the file name of a clip."""
        return f"{prompt[: self.longest_prompt]}-{number}.mp4"


SUITES: Final = {
    suite.name: suite
    for suite in (
        Suite("vbench", 5, {"temporal_flickering": 25}, source="Huang et al. 2023, VBench (arXiv 2311.17982)"),
        Suite("vbench2", 3, {"Diversity": 20}, 180, source="Zheng et al. 2025, VBench-2.0 (arXiv 2503.21755)"),
    )
}


class SuitePrompt(NamedTuple):
    """A prompt of a suite.

    Attributes:
        prompt: the prompt of the suite, which names clips.
        text: the prompt for the generator, perhaps reworded.
        clips: number of clips.
        dimensions: dimensions measured on them; empty if the list has none.
    """

    prompt: str
    text: str
    clips: int
    dimensions: tuple[str, ...] = ()


_PROMPT_NAMES = ("prompt_en", "prompt", "text", "caption")
_DIMENSION_NAMES = ("dimension", "dimensions")


def read_suite_prompts(
    path: Path,
    suite: Suite,
    *,
    variant: str | None = None,
    texts: Path | None = None,
    dimensions: Sequence[str] = (),
) -> list[SuitePrompt]:
    """Read a suite's list of prompts.

    Args:
        path: one prompt per line, or a table with the prompt (``prompt_en`` in the public lists) and its dimensions.
        suite: the suite.
        variant: column with reworded prompts for the generator, such as longer ones.
        texts: file with reworded prompts, one line per line of the list, instead of ``variant``.
        dimensions: use only prompts of these.

    Returns:
        every prompt once, in list order, with the dimensions of all its rows.

    Raises:
        InputError: the file cannot be read, has no prompts or no such column, or a prompt cannot be a file name or has
            those of another.
    """
    entries = read_entries(path)
    column, named = entries.find(*_PROMPT_NAMES), entries.find(*_DIMENSION_NAMES)
    other = entries.find(variant) if variant else None
    for wanted, found, field in (("prompt", column, "prompt"), (variant, other, variant)):
        if wanted and found is None:
            raise InputError(
                f"there is no column '{wanted}'",
                remedy=f"Use one of {', '.join(entries.columns[:12]) or 'none'}, or another list",
                file=path,
                field=field,
            )
    if dimensions and named is None:
        raise InputError("the list has no dimensions", remedy="Remove --dimension", file=path, field="dimension")
    assert column is not None
    wordings = _lines(texts, len(entries.rows)) if texts is not None else None
    found_prompts: dict[str, SuitePrompt] = {}
    for place, entry in enumerate(entries.rows):
        prompt = _cell(entry, column, path)
        text = wordings[place] if wordings else _cell(entry, other, path) if other else prompt
        of_prompt = _dimensions(entry.values.get(named)) if named else ()
        before = found_prompts.get(prompt)
        if before is not None and before.text != text:
            problem = f"the prompt '{prompt}' has two wordings"
            raise InputError(problem, remedy="Keep one", file=path, row=entry.row, field=variant)
        of_all = tuple(dict.fromkeys((*(before.dimensions if before else ()), *of_prompt)))
        clips = max([suite.clips, *(suite.more_clips.get(name, 0) for name in of_all)])
        found_prompts[prompt] = SuitePrompt(prompt, text, clips, of_all)
    chosen = [one for one in found_prompts.values() if not dimensions or set(dimensions) & set(one.dimensions)]
    if not chosen:
        known = sorted({name for one in found_prompts.values() for name in one.dimensions})
        remedy = f"Use dimensions of {', '.join(known)}" if known else "Give a list with prompts"
        raise InputError("no prompt has these dimensions", remedy=remedy, file=path)
    _check_names(chosen, suite, path)
    return chosen


def _lines(path: Path, wanted: int) -> list[str]:
    """Return the lines of a file of wordings."""
    entries = read_entries(path, file_format="txt")
    if len(entries.rows) != wanted:
        raise InputError(
            f"there are {len(entries.rows)} wordings for {wanted} prompts",
            remedy="Give one line per prompt of the list, in the same order",
            file=path,
        )
    return [_cell(entry, entries.columns[0], path) for entry in entries.rows]


def _cell(entry: Entry, column: str, path: Path) -> str:
    try:
        if entry.problem:
            raise ValueError(entry.problem)
        text = as_text(entry.values.get(column)).strip()
        if not text:
            raise ValueError("the cell is empty")
    except ValueError as error:
        raise InputError(str(error), remedy="Correct the list", file=path, row=entry.row, field=column) from None
    return text


def _dimensions(value: object) -> tuple[str, ...]:
    if is_missing(value) or value == "":
        return ()
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)


def _check_names(prompts: Sequence[SuitePrompt], suite: Suite, path: Path) -> None:
    """Raise :class:`InputError` if a prompt cannot be a file name, or two clips share one, ignoring case."""
    seen: dict[str, str] = {}
    for one in prompts:
        name = suite.file_name(one.prompt, one.clips - 1)
        if "/" in name or "\0" in name or name.startswith(".") or len(name.encode()) > _LONGEST_NAME:
            raise InputError(
                f"the prompt '{one.prompt}' cannot be a file name: it is too long, begins with a dot or has a slash",
                remedy="Remove it from the list: the suite's scripts cannot find its clips either",
                file=path,
                field="prompt",
            )
        first = seen.setdefault(suite.file_name(one.prompt, 0).casefold(), one.prompt)
        if first != one.prompt:
            raise InputError(
                f"the prompts '{first}' and '{one.prompt}' have the same file names",
                remedy="Remove one of them from the list",
                file=path,
                field="prompt",
            )
