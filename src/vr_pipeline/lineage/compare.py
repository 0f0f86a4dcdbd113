"""What differs between two runs: code, parameters, data, results, environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vr_pipeline.lineage.figures import flattened
from vr_pipeline.lineage.runs import Run

_MACHINE = ("python", "platform", "cpu", "cpu.cores", "memory.gib", "gpu")


@dataclass(frozen=True)
class Change:
    """A value that differs; None where one side has none."""

    name: str
    first: Any
    second: Any

    @property
    def line(self) -> str:
        """For people."""
        moved = ""
        if isinstance(self.first, float) and isinstance(self.second, float):
            moved = f"  ({self.second - self.first:+.6g})"
        return f"{self.name}: {_shown(self.first)} -> {_shown(self.second)}{moved}"


@dataclass(frozen=True)
class Differences:
    """By subject, each list sorted by name.

    Args:
        code: commit, changed files, and source files that the stages ran and that differ.
        parameters: by dotted name.
        data: inputs that no stage of the run made.
        outputs: datasets that both runs wrote.
        results: metrics.
        environment: machine and packages.
    """

    code: list[Change] = field(default_factory=list)
    parameters: list[Change] = field(default_factory=list)
    data: list[Change] = field(default_factory=list)
    outputs: list[Change] = field(default_factory=list)
    results: list[Change] = field(default_factory=list)
    environment: list[Change] = field(default_factory=list)


def differences(first: Run, second: Run) -> Differences:
    """Compare two runs by their records."""
    return Differences(
        code=code_changes(first, second),
        parameters=changes(_parameters(first), _parameters(second)),
        data=changes(_raw(first), _raw(second)),
        outputs=changes(*_shared(_outputs(first), _outputs(second))),
        results=changes(_figures(first), _figures(second)),
        environment=environment_changes(first.record, second.record),
    )


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Change]:
    """Names whose values differ."""
    names = sorted(first.keys() | second.keys())
    return [Change(name, first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)]


def code_changes(first: Run, second: Run) -> list[Change]:
    """Commit, recorded changes, and source files of stages that both runs have."""
    own = [
        {
            "commit": run.tags.get("git.commit"),
            "changed files": ", ".join(run.record.get("code", {}).get("changed", [])),
        }
        for run in (first, second)
    ]
    files = changes(*_shared(_sources(first), _sources(second)))
    return [*changes(*own), *files]


def environment_changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Change]:
    """Machine and packages that differ between two records."""
    machines = [{name: record.get("machine", {}).get(name) for name in _MACHINE} for record in (first, second)]
    packages = [
        {f"package {name}": version for name, version in record.get("packages", {}).items()}
        for record in (first, second)
    ]
    return [*changes(*machines), *changes(*packages)]


def _shared(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Both sides, of names that both have."""
    names = first.keys() & second.keys()
    return {name: first[name] for name in names}, {name: second[name] for name in names}


def _entries(run: Run, kind: str) -> Iterable[tuple[str, str, str]]:
    """Dataset, path and hash of everything that the stages read or wrote."""
    for stage in run.stages().values():
        for listed in stage[kind]:
            yield stage["datasets"].get(listed["path"], ""), str(listed["path"]), str(listed["md5"])


def _sources(run: Run) -> dict[str, str]:
    files = {path for stage in run.stages().values() for path in stage["sources"]}
    return {path: md5[:8] for _, path, md5 in _entries(run, "deps") if path in files}


def _raw(run: Run) -> dict[str, str]:
    known = {path for _, path, _ in _entries(run, "outs")} | set(_sources(run))
    return {dataset or path: md5[:8] for dataset, path, md5 in _entries(run, "deps") if path not in known}


def _outputs(run: Run) -> dict[str, str]:
    return {dataset: md5[:8] for dataset, _, md5 in _entries(run, "outs")}


def _parameters(run: Run) -> dict[str, Any]:
    blocks = run.record.get("parameters", {})
    return {name: value for block, content in blocks.items() for name, value in flattened(content, block)}


def _figures(run: Run) -> dict[str, float]:
    return {name: value for values in run.record.get("metrics", {}).values() for name, value in values.items()}


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def lines(found: Differences, most: int) -> list[str]:
    """The differences on one screen.

    Args:
        found: what differs.
        most: lines a subject; the rest is counted.
    """
    subjects = {
        "Code": found.code,
        "Parameters": found.parameters,
        "Data supplied": found.data,
        "Data made": found.outputs,
        "Results": sorted(found.results, key=distance, reverse=True),
        "Environment": found.environment,
    }
    return [
        line
        for subject, differing in subjects.items()
        for line in (
            f"{subject}: {f'{len(differing)} differ' if differing else 'the same'}",
            *listed(differing, most),
        )
    ]


def listed(found: Sequence[Change], most: int) -> list[str]:
    """Indented lines of the first ``most`` changes, and how many there are beyond."""
    rest = [f"  and {len(found) - most} more"] if len(found) > most else []
    return [*(f"  {change.line}" for change in found[:most]), *rest]


def distance(change: Change) -> float:
    """How far a figure moved, relative to itself; without end if one side has none."""
    if not isinstance(change.first, float) or not isinstance(change.second, float):
        return float("inf")
    return abs(change.second - change.first) / max(abs(change.first), 1e-9)
