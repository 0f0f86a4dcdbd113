"""Readers of labelled items: conversations of judges, and tables of ratings of single clips.

Unusable rows are skipped with their reason; if more than one row and more than a tenth are unusable, the file is
rejected (:func:`vr_pipeline.storage.tables.left_out`).
"""

import ast
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.preferences.embedded import clip_name
from vr_pipeline.preferences.items.conversation import (
    LLAVA_CRITIC,
    MEDIA_PLACE,
    UNIFIED_REWARD,
    ConversationPatterns,
    fields_of,
    preference_of,
    scores_of,
)
from vr_pipeline.preferences.items.rows import Form, Item, Task, item_table
from vr_pipeline.storage.tables import Entries, left_out, read_entries
from vr_pipeline.storage.values import as_number, as_text, is_missing
from vr_pipeline.video.find import VIDEO_SUFFIXES

Values = Mapping[str, Any]

VIDEO_FEEDBACK_DIMENSIONS: Final = (
    "visual quality",
    "temporal consistency",
    "dynamic degree",
    "text-to-video alignment",
    "factual consistency",
)
_AGREEING: Final = 2
"""Annotators who must see an element (UnifiedReward, appendix on EvalMuse)."""


def read_items(
    path: str | Path,
    format: str,  # the word of the catalog entry
    *,
    patterns: Mapping[str, Any] | None = None,
    source: str | None = None,
) -> pd.DataFrame:
    """Read a file of labelled items.

    Args:
        path: JSON, JSON lines, CSV or parquet; see :func:`vr_pipeline.storage.tables.read_entries`.
        format: a key of :data:`ITEM_FORMATS`.
        patterns: changes of :class:`~vr_pipeline.preferences.items.conversation.ConversationPatterns` for conversation
            formats.
        source: value of the column ``source``; by default the format's name.

    Returns:
        the columns of :data:`~vr_pipeline.preferences.items.rows.ITEM_COLUMNS`, one row per label;
        ``attrs["rejected"]`` counts unusable entries.

    Raises:
        InputError: the format is unknown, the file cannot be read, or too many entries are unusable.
    """
    if format not in ITEM_FORMATS:
        remedy = f"use one of {', '.join(ITEM_FORMATS)}"
        raise InputError(f"unknown format '{format}'", remedy=remedy, field="format", file=path)
    read = ITEM_FORMATS[format]
    if format in CONVERSATIONS:
        read = partial(_conversation, _with(CONVERSATIONS[format], patterns, Path(path)))
    elif patterns:
        raise InputError(
            f"the format '{format}' has no conversations",
            remedy=f"remove 'patterns', or use one of {', '.join(CONVERSATIONS)}",
            field="patterns",
            file=path,
        )
    entries = read_entries(Path(path))
    problems, items = entries.problems(), []
    for entry in entries.rows:
        if entry.problem:
            continue
        try:
            items += list(read(_named(entries, entry.values)))
        except ValueError as error:
            remedy = "correct the entry, or remove it"
            problems.append(InputError(str(error), remedy=remedy, file=entries.path, row=entry.row))
    left_out(problems, len(entries.rows), what="labelled items")
    if not items:
        raise InputError("no entry has a label", remedy="check the file and its format", file=path)
    table = item_table(items, source or format)
    table.attrs["rejected"] = len({problem.row for problem in problems})
    return table


def _with(patterns: ConversationPatterns, changes: Mapping[str, Any] | None, path: Path) -> ConversationPatterns:
    from pydantic import ValidationError

    try:
        return ConversationPatterns.model_validate(patterns.model_dump() | dict(changes or {}))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(
            f"a pattern is wrong: {first['msg']}", remedy="correct it", field=f"patterns.{field}", file=path
        ) from error


def _named(entries: Entries, values: Values) -> Values:
    """Return the values of a row by lower-case names, since public files differ in case."""
    return {name.strip().lower(): values.get(name) for name in entries.columns}


def _conversation(patterns: ConversationPatterns, values: Values) -> Iterator[Item]:
    """Read the first question and answer of a conversation."""
    question, answer = _turns(values.get("conversations"))
    parsed = fields_of(question, patterns)
    files = _files(values)
    shown = len(MEDIA_PLACE.findall(question))
    if shown and shown != len(files):
        raise ValueError(f"the question shows {shown} images or clips, but there are {len(files)} files")
    preferred = preference_of(answer, patterns)
    scores = scores_of(answer, patterns)
    if parsed.response_a:
        form: Form = "pair"
    elif parsed.response or preferred is None:
        form = "point"
    else:
        form = "pair"
    if form == "pair":
        if preferred is None:
            raise ValueError("the answer has no preference")
        understanding = bool(parsed.response_a)
        first, second = (files, ()) if understanding else _halves(files)
        yield Item(
            task=_task(first, understanding=understanding),
            form=form,
            prompt=parsed.prompt,
            answer=preferred,
            files_a=first,
            files_b=second,
            response_a=parsed.response_a,
            response_b=parsed.response_b,
        )
        return
    if not scores:
        raise ValueError("the answer has neither a preference nor a score")
    task = _task(files, understanding=bool(parsed.response))
    for dimension, number in scores.items():
        yield Item(task, form, parsed.prompt, number, files, dimension=dimension, response_a=parsed.response)


def _turns(value: Any) -> tuple[str, str]:
    """Return the first question and its answer of a conversation."""
    turns = json.loads(value) if isinstance(value, str) else value
    if hasattr(turns, "tolist"):
        turns = turns.tolist()
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(turn, Mapping) for turn in turns[:2]):
        raise ValueError("'conversations' is not a list of a question and an answer")
    roles = [str(turn.get("from", turn.get("role", ""))).lower() for turn in turns]
    # Some sources start with the system's turn.
    start = 1 if roles[0] == "system" else 0
    if len(turns) < start + 2 or roles[start] not in ("human", "user") or roles[start + 1] not in ("gpt", "assistant"):
        raise ValueError(f"the turns are not question and answer, but {', '.join(roles[:3])}")
    question, answer = (turn.get("value", turn.get("content")) for turn in turns[start : start + 2])
    if not isinstance(question, str) or not isinstance(answer, str) or not answer.strip():
        raise ValueError("the question or the answer is not text")
    return question, answer


def _files(values: Values) -> tuple[str, ...]:
    """Return the files of an entry from the first column that has them."""
    for name in ("video", "videos", "image", "images"):
        found = values.get(name)
        listed = _listed(found)
        if not listed:
            continue
        files = tuple(clip_name(one, values.get("id") if len(listed) == 1 else "") for one in listed)
        if not all(isinstance(one, str) and one.strip() for one in files):
            raise ValueError(f"'{name}' has no file")
        return tuple(str(one).strip() for one in files)
    raise ValueError("there is no image or video")


def _listed(value: Any) -> list[Any]:
    """Return the values of a cell with one, several or none."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return list(value)
    return [] if is_missing(value) or value == "" else [value]


def _halves(files: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the two compared clips: two files, or equally many frames of both."""
    if len(files) < 2 or len(files) % 2:
        raise ValueError(f"two clips are compared, but there are {len(files)} files")
    middle = len(files) // 2
    if files[:middle] == files[middle:]:
        raise ValueError("a clip is compared with itself")
    return files[:middle], files[middle:]


def _task(files: Sequence[str], *, understanding: bool) -> Task:
    """Return the task; several files are frames of a clip."""
    is_video = len(files) > 1 or Path(files[0]).suffix.lower() in VIDEO_SUFFIXES
    if understanding:
        return "video_understanding" if is_video else "image_understanding"
    return "video_generation" if is_video else "image_generation"


def _video_feedback(values: Values) -> Iterator[Item]:
    """Read a row of VideoFeedback (He et al. 2024, arXiv 2406.15252): frames, a prompt and five integer grades."""
    prompt = _text(values, "text prompt")
    files = _files(values)
    for name in VIDEO_FEEDBACK_DIMENSIONS:
        number = as_number(values.get(name))
        if number != number or not number.is_integer():
            raise ValueError(f"'{name}' is not an integer grade")
        yield Item("video_generation", "point", prompt, f"{number:.0f}", files, dimension=name)


def _evalmuse(values: Values) -> Iterator[Item]:
    """Read a row of EvalMuse (Han et al. 2024, arXiv 2412.18150): overall grades and elements by annotator.

    The overall score is their mean. An element is present if two annotators see it.
    """
    prompt = _text(values, "prompt")
    file = _text(values, "img_path")
    yield Item("image_generation", "point", prompt, _short(fmean(_numbers(values.get("total_score")))), (file,))
    elements = _parsed(values.get("element_score"))
    if elements is None:
        return
    if not isinstance(elements, Mapping):
        raise ValueError("'element_score' is not a mapping of elements")
    for name, grades in elements.items():
        votes = Counter(number > 0 for number in _numbers(grades))
        seen = votes[True] >= min(_AGREEING, votes.total())
        yield Item("image_generation", "point", prompt, str(int(seen)), (file,), dimension=f"element {name}")


def _text(values: Values, name: str) -> str:
    text = as_text(values.get(name)).strip()
    if not text:
        raise ValueError(f"'{name}' is empty")
    return text


def _numbers(value: Any) -> list[float]:
    numbers = [as_number(one) for one in _listed(_parsed(value))]
    if not numbers or any(number != number for number in numbers):
        raise ValueError(f"'{str(value)[:40]}' is not a list of numbers")
    return numbers


def _parsed(value: Any) -> Any:
    """Return a value, parsed if it is the text of a Python or JSON literal."""
    if is_missing(value) or not isinstance(value, str):
        return None if is_missing(value) else value
    try:
        return ast.literal_eval(value) if value.strip() else None
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"'{value[:40]}' cannot be read") from error


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


CONVERSATIONS: Final = {"unified_reward_items": UNIFIED_REWARD, "llava_critic": LLAVA_CRITIC}
"""Formats that are conversations, with their wording."""

ITEM_FORMATS: Final[dict[str, Callable[[Values], Iterator[Item]]]] = {
    **{name: partial(_conversation, patterns) for name, patterns in CONVERSATIONS.items()},
    "video_feedback": _video_feedback,
    "evalmuse": _evalmuse,
}
"""Readers of an entry, by format; values have lower-case names."""
