"""From an exception to the paragraph that a user should read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import ValidationError

from vr_pipeline.errors import PipelineError

_LISTED = 10


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def explain(error: BaseException) -> str | None:
    """A readable account of an error that the user can mend; None for errors of the program itself.

    Frameworks wrap errors in errors of their own, so the chain of causes is searched for one that says most.
    """
    from kedro.config import MissingConfigException
    from kedro.io import DatasetError
    from kedro.validation.exceptions import DataValidationError, ParameterValidationError

    chain = list(causes(error))
    for kind, account in (
        (PipelineError, str),
        (ParameterValidationError, parameters_account),
        (DataValidationError, table_account),
        (MissingConfigException, str),
    ):
        for link in chain:
            if isinstance(link, kind):
                return account(link)
    for link in chain:
        if isinstance(link, ValidationError):
            return f"Settings of {link.title} are not valid:\n{pydantic_account(link)}"
        if isinstance(link, FileNotFoundError) and link.filename:
            return f"file {link.filename}: it does not exist. Run the pipeline that makes it, or correct its path."
    if isinstance(error, DatasetError | ValueError) and error.__traceback__ is not None:
        return _kedro_account(error)
    return None


def parameters_account(error: BaseException) -> str:
    """Parameters that do not fit their models, one line each."""
    # Kedro keeps only the text of pydantic's errors: a field a line, and below it, indented, what is wrong.
    lines, block, field = [], "", ""
    for line in str(error).splitlines():
        if opening := re.match(r"- Parameter '([^']*)': (.*)", line):
            block, field = opening[1], ""
            if "validation error" not in opening[2]:
                lines.append(f"  {block}: {opening[2]}")
        elif complaint := re.match(r"  (.*?) \[type=(\w+), input_value=(.*), input_type=\w+\]$", line):
            given = "" if complaint[2] in {"missing", "extra_forbidden"} else f" (got {complaint[3]})"
            lines.append(f"  {'.'.join(filter(None, (block, field)))}: {complaint[1]}{given}")
        elif block and line and not line.startswith(" "):
            field = line
    listing = "\n".join(lines) if lines else f"  {error}"
    return f"Parameters are not valid (conf/<env>/parameters, --params):\n{listing}"


def pydantic_account(error: ValidationError) -> str:
    """One line for each field that is wrong: where, what, and what was given."""
    lines = []
    for detail in error.errors()[:_LISTED]:
        place = ".".join(str(part) for part in detail["loc"]) or error.title
        given = "" if detail["type"] == "missing" else f" (got {_short(detail['input'])})"
        lines.append(f"  {place}: {detail['msg']}{given}")
    hidden = error.error_count() - len(lines)
    return "\n".join([*lines, *([f"  and {hidden} more"] if hidden > 0 else [])])


def table_account(error: BaseException) -> str:
    """A table that does not fit its schema: the dataset, and for each broken rule how often and for instance where."""
    from kedro.validation.exceptions import DataValidationError

    assert isinstance(error, DataValidationError)
    moment = {"load": "when it was read", "save": "when it was to be written"}.get(error.mode or "", "")
    head = f"Table '{error.dataset_name}' does not fit its schema {moment}".rstrip()
    rows = failing_rows(error)
    lines = []
    for failure in error.failures[:_LISTED]:
        place = f"column '{failure.column}': " if failure.column else ""
        examples = f", for instance {', '.join(_short(value) for value in failure.failure_examples[:3])}"
        lines.append(
            f"  {place}{failure.check or failure.message} fails {failure.failure_count} time(s)"
            f"{examples if failure.failure_examples else ''}"
            f"{_rows_text(rows.get((failure.column, failure.check), ()))}"
        )
    if not lines:
        lines = [f"  {error.message}"]
    return "\n".join([f"{head}:", *lines])


def failing_rows(error: BaseException) -> dict[tuple[str | None, str | None], list[Any]]:
    """Row labels that broke a rule, by column and rule, where the schema library tells them."""
    for link in causes(error):
        cases = getattr(link, "failure_cases", None)
        if cases is not None and {"column", "check", "index"} <= set(getattr(cases, "columns", ())):
            found: dict[tuple[str | None, str | None], list[Any]] = {}
            for column, check, index in zip(cases["column"], cases["check"], cases["index"], strict=True):
                if index is not None and index == index:
                    found.setdefault((column, check), []).append(index)
            return found
    return {}


def _rows_text(rows: Sequence[Any]) -> str:
    if not rows:
        return ""
    # Row 1 of a table as an editor shows it is the header.
    numbers = [str(int(row) + 2) if isinstance(row, int | float) else str(row) for row in rows[:3]]
    return f" (row {', '.join(numbers)}{', ...' if len(rows) > 3 else ''})"


def _kedro_account(error: BaseException) -> str | None:
    """Messages of Kedro itself, which speak to users: an unknown pipeline, a dataset that is not in the catalog."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    raised_by_kedro = frames[-1].partition(".")[0] == "kedro" and isinstance(error.__cause__, KeyError | None)
    return str(error) if raised_by_kedro else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
