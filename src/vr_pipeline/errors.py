"""Errors a user can act on: one paragraph that names the file, the row, the field and the next step."""

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from vr_pipeline.terminal import one_line, visible


class PipelineError(Exception):
    """Base of the errors that are shown to users as one paragraph, without a traceback."""


class RunInterrupted(PipelineError):
    """The run was stopped from outside (Ctrl-C, or a scheduler that takes the machine back)."""


class InputError(PipelineError):
    """A file, table or option that the user supplied cannot be used.

    Args:
        problem: what is wrong, in one sentence without a full stop.
        remedy: what to do about it, in one sentence without a full stop.
        file: the file that holds the problem, if it came from one.
        row: the row in that file, counted from 1 as a text editor shows it (a table's header is row 1).
        field: the column, key or option.
    """

    def __init__(
        self,
        problem: str,
        *,
        remedy: str,
        file: str | Path | None = None,
        row: int | str | None = None,
        field: str | None = None,
    ) -> None:
        self.problem, self.remedy, self.file, self.row, self.field = problem, remedy, file, row, field
        place = ", ".join(
            part
            for part in (
                f"file {one_line(file)}" if file is not None else "",
                f"row {one_line(row)}" if row is not None else "",
                f"field '{one_line(field)}'" if field is not None else "",
            )
            if part
        )
        super().__init__(visible(f"{place + ': ' if place else ''}{paragraph(problem, remedy)}"))

    def at(
        self, *, file: str | Path | None = None, row: int | str | None = None, field: str | None = None
    ) -> "InputError":
        """Return the error at a place; values not given stay the same."""
        file, row, field = file or self.file, row or self.row, field or self.field
        return InputError(self.problem, remedy=self.remedy, file=file, row=row, field=field)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword-only arguments do not pickle by default; remote workers send them back pickled.
        return (_rebuild, (type(self), self.problem, self.remedy, self.file, self.row, self.field))


def _rebuild(
    kind: type[InputError],
    problem: str,
    remedy: str,
    file: str | Path | None,
    row: int | str | None,
    field: str | None,
) -> InputError:
    return kind(problem, remedy=remedy, file=file, row=row, field=field)


def paragraph(problem: str, remedy: str) -> str:
    """Return both as sentences; a problem that quotes another error has its full stop already."""
    return f"{problem}{'' if problem.endswith('.') else '.'} {remedy[:1].upper()}{remedy[1:]}."


def about(name: object, reason: str) -> str:
    """Return a reason with the name of what it is about, unless it begins with that file."""
    names_it = reason.startswith("file ") and str(name) in reason.partition(": ")[0]
    return reason if names_it else f"{name}: {reason}"


def storage_trouble(error: BaseException) -> tuple[str, str] | None:
    """Return what an error of a file system means: the problem and the remedy; None if it is of another kind."""
    number = _error_number(error)
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return "no space is left on the disk", "free some and run the same command again"
    if number in {errno.ENOTDIR, errno.EEXIST}:
        return "a file stands where a folder should be", "move it or set another path in the catalog"
    if number in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "the folder cannot be written", "make it writable or set another path in the catalog"
    return None


def _error_number(error: BaseException) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    # This library writes files by itself, and has one kind of error for all that may happen.
    if type(error).__name__ == "SafetensorError" and (found := re.search(r"\(os error (\d+)\)", str(error))):
        return int(found[1])
    return None


@contextlib.contextmanager
def storage_explained(place: Path, kept: str) -> Iterator[None]:
    """Explain errors of a full disk or missing permission raised within the block.

    Args:
        place: what is written, if the error does not say.
        kept: what is not lost, a clause.

    Raises:
        InputError: for these errors; others pass.
    """
    try:
        yield
    except Exception as error:
        trouble = storage_trouble(error)
        if trouble is None:
            raise
        problem, remedy = trouble
        place = getattr(error, "filename", None) or place
        raise InputError(problem, remedy=f"{remedy}; {kept}", file=place) from error
