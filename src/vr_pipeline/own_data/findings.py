"""Errors and warnings about users' files, collected so that one round of corrections is enough."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vr_pipeline.errors import InputError, PipelineError

Severity = Literal["error", "warning"]
_ROWS_NAMED = 8


@dataclass(frozen=True)
class Finding:
    """An error, which has to be corrected, or a warning.

    Args:
        severity: 'error' or 'warning'.
        problem, remedy: sentences without full stops.
        file: the file.
        row: its row, as an editor counts.
        field: the column, key or option.
    """

    severity: Severity
    problem: str
    remedy: str
    file: Path | None = None
    row: int | None = None
    field: str | None = None


class Findings(list[Finding]):
    """Collected findings."""

    def error(
        self, problem: str, remedy: str, file: Path | None = None, row: int | None = None, field: str | None = None
    ) -> None:
        """Add an error."""
        self.append(Finding("error", problem, remedy, file, row, field))

    def warning(
        self, problem: str, remedy: str, file: Path | None = None, row: int | None = None, field: str | None = None
    ) -> None:
        """Add a warning."""
        self.append(Finding("warning", problem, remedy, file, row, field))

    def raised(self, error: InputError, severity: Severity = "error") -> None:
        """Add a raised error."""
        row = int(error.row) if error.row is not None and str(error.row).isdigit() else None
        file = Path(error.file) if error.file is not None else None
        self.append(Finding(severity, error.problem, error.remedy, file, row, error.field))

    @property
    def has_errors(self) -> bool:
        """Whether there is an error."""
        return any(one.severity == "error" for one in self)


class UnusableFiles(PipelineError):
    """Files that cannot be used; the message lists all findings."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        errors = len(grouped(finding for finding in findings if finding.severity == "error"))
        super().__init__("\n".join([f"{errors} problem(s) to correct; nothing was written.", *lines_of(findings)]))


def grouped(findings: Iterable[Finding]) -> list[tuple[Finding, list[int]]]:
    """Merge findings that differ only in their row; return each with its rows, in order of first appearance."""
    groups: dict[tuple[object, ...], tuple[Finding, list[int]]] = {}
    for one in findings:
        key = (one.severity, one.problem, one.remedy, one.file, one.field)
        _, rows = groups.setdefault(key, (one, []))
        if one.row is not None and one.row not in rows:
            rows.append(one.row)
    return list(groups.values())


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """Return one line per finding: errors first, then by file and row."""
    ordered = sorted(
        grouped(findings), key=lambda group: (group[0].severity, str(group[0].file or ""), min(group[1], default=0))
    )
    return [f"  {one.severity}: {_place(one, rows)}{_sentences(one)}" for one, rows in ordered]


def _place(finding: Finding, rows: list[int]) -> str:
    named = ", ".join(str(row) for row in sorted(rows)[:_ROWS_NAMED])
    more = f" and {len(rows) - _ROWS_NAMED} more" if len(rows) > _ROWS_NAMED else ""
    parts = [
        f"file {finding.file}" if finding.file is not None else "",
        f"row{'s' if len(rows) > 1 else ''} {named}{more}" if rows else "",
        f"field '{finding.field}'" if finding.field else "",
    ]
    place = ", ".join(part for part in parts if part)
    return f"{place}: " if place else ""


def _sentences(finding: Finding) -> str:
    return f"{finding.problem}. {finding.remedy[:1].upper()}{finding.remedy[1:]}."
