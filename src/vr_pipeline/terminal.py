"""What people read on a terminal, in a log or on a page: text from elsewhere shows itself and controls nothing.

File names, prompts, answers of models, journals and records of other people may hold escape sequences that clear the
screen or set its title, and marks that show text in another order than it has. Whatever is printed goes through here.
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import click

_BIDI = "\u202a-\u202e\u2066-\u2069"
"""Embeddings, overrides and isolates; the plain marks of direction, which scripts need, are not among them."""

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029" + _BIDI + "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_BREAKS = re.compile("[\t\n]")
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def visible(text: object) -> str:
    """Return the text with every control character written out (``\\x1b``, ``\\u202e``); ends of lines and tabs stay.

    Removed are C0 and C1 controls, delete, separators of Unicode, embeddings and overrides of direction, invisible tags
    and halves of surrogate pairs, as Python has them for file names that are not UTF-8.
    """
    return _CONTROLS.sub(_written_out, str(text).replace("\r\n", "\n"))


def one_line(text: object) -> str:
    """Escape as :func:`visible`, and line ends and tabs too: for names, which must stay on one line."""
    return _BREAKS.sub(_written_out, _CONTROLS.sub(_written_out, str(text)))


def _written_out(found: re.Match[str]) -> str:
    character = found[0]
    if character in _SHORT:
        return _SHORT[character]
    if character < " ":
        return f"\\x{ord(character):02x}"
    # JSON reads this form, so that documents stay what they are.
    return json.dumps(character)[1:-1] if character != "\x7f" else r"\u007f"


def aligned(rows: Sequence[Sequence[str]], *, left: Collection[int]) -> list[str]:
    """Return the lines of a table: columns in ``left`` begin alike, the others end alike; no blanks at the ends."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place in left else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def echo(text: object = "", *, fg: str | None = None, err: bool = False, nl: bool = True) -> None:
    """Print text for people, or results for programs, without anything that controls a terminal.

    Args:
        text: from wherever.
        fg: colour, where colours are wanted.
        err: to standard error.
        nl: end the line.
    """
    cleaned = visible(text)
    click.echo(click.style(cleaned, fg=fg) if fg else cleaned, err=err, nl=nl)


class CleanFormatter(logging.Formatter):
    """Log lines in which texts that were put into a message cannot begin a line of their own.

    Args:
        inner: makes the lines.
    """

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        given = record.args
        try:
            record.args = _cleaned(given)
            return visible(self.inner.format(record))
        finally:
            record.args = given


def clean_logs() -> None:
    """Make all current handlers of logging write lines without control characters.

    Kedro takes no formatter from a project's logging.yml, so they are set here.
    """
    known = (logging.getLogger(name) for name in ("", *logging.root.manager.loggerDict))
    for handler in {handler for one in known for handler in one.handlers}:
        if not isinstance(handler.formatter, CleanFormatter):
            handler.setFormatter(CleanFormatter(handler.formatter or logging.Formatter()))


def _cleaned(arguments: Any) -> Any:
    if isinstance(arguments, Mapping):
        return {name: _cleaned_value(value) for name, value in arguments.items()}
    return tuple(map(_cleaned_value, arguments)) if isinstance(arguments, tuple) else arguments


def _cleaned_value(value: Any) -> Any:
    return one_line(value) if isinstance(value, str | PurePath) else value


def guard_messages(command: click.Command) -> None:
    """Clean what click says of a command's arguments: an argument may be a file name that a pattern brought."""
    for name in ("make_context", "invoke"):
        setattr(command, name, _with_clean_message(getattr(command, name)))


def _with_clean_message(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except click.ClickException as error:
            vars(error).update(message=visible(error.message))
            raise

    return call
