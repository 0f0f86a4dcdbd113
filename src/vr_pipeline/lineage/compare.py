"""What differs between two runs: code, parameters, data, results, environment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vr_pipeline.lineage.chain import Execution
from vr_pipeline.lineage.figures import flattened
from vr_pipeline.lineage.runs import Run

_UNCERTAINTY = (".ci_low", ".ci_high", ".se")
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
class Account:
    """A run with everything behind it: a result is what its own stage made of what others made before.

    Args:
        chain: executions behind its results, makers first; empty to look at the run alone.
    """

    run: Run
    chain: Sequence[Execution] = ()

    def runs(self) -> list[Run]:
        """Return the runs that executed them, the one that the account is about last."""
        others = {execution.run.id: execution.run for execution in self.chain if execution.run.id != self.run.id}
        return [*others.values(), self.run]

    def stages(self) -> list[tuple[Run, dict[str, Any]]]:
        """Return what is recorded of each stage; stages of the run that did not finish come last."""
        behind = {execution.key: execution.run for execution in self.chain}
        own = {(self.run.id, name): self.run for name in self.run.stages()}
        return [(run, run.stages()[name]) for (_, name), run in {**behind, **own}.items()]

    def entries(self, kind: str) -> Iterator[tuple[str, str, str]]:
        """Dataset, path and hash of everything that the stages read (``deps``) or wrote (``outs``)."""
        for _, stage in self.stages():
            for entry in stage[kind]:
                yield stage["datasets"].get(entry["path"], ""), str(entry["path"]), str(entry["md5"])

    def sources(self) -> dict[str, str]:
        """Source file to hash."""
        files = {path for _, stage in self.stages() for path in stage["sources"]}
        return _united((path, md5[:8]) for _, path, md5 in self.entries("deps") if path in files)

    def supplied(self) -> dict[str, str]:
        """Return data that none of the stages made, to hash."""
        known = {path for _, path, _ in self.entries("outs")} | set(self.sources())
        entries = self.entries("deps")
        return _united((dataset or path, md5[:8]) for dataset, path, md5 in entries if path not in known)

    def made(self) -> dict[str, str]:
        """Dataset that the stages made, to hash."""
        return _united((dataset, md5[:8]) for dataset, _, md5 in self.entries("outs"))

    def parameters(self) -> dict[str, Any]:
        """Return what the stages were given by dotted name, with settings of catalog entries."""
        given = [values for _, stage in self.stages() for values in stage["params"].values()]
        blocks = {
            **self.run.record.get("parameters", {}),
            **{key: value for keys in given for key, value in keys.items()},
        }
        return {name: value for block, content in blocks.items() for name, value in flattened(content, block)}

    def results(self) -> dict[str, float]:
        """Metrics by dotted name."""
        found = dict(self.run.record.get("metrics", {}))
        for run, stage in self.stages():
            written = {stage["datasets"].get(entry["path"]) for entry in stage["outs"]}
            found |= {name: values for name, values in run.record.get("metrics", {}).items() if name in written}
        return {name: value for values in found.values() for name, value in values.items()}

    def code(self) -> dict[str, Any]:
        """Commit and recorded changes."""
        changed = self.run.record.get("code", {}).get("changed", [])
        return {"commit": self.run.tags.get("git.commit"), "changed files": ", ".join(changed)}

    def environment(self) -> dict[str, str]:
        """Machine and packages."""
        return _united(pair for run in self.runs() for pair in environment(run.record).items())


def _united(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the values of each name, several joined: runs behind a result may have had their own."""
    values: dict[str, dict[str, None]] = {}
    for name, value in pairs:
        values.setdefault(name, {})[value] = None
    return {name: " and ".join(found) for name, found in values.items()}


def differences(first: Account, second: Account) -> dict[str, list[Change]]:
    """Compare two runs, with what is behind them, by their records: what differs, by subject.

    Source files and results of stages are compared where both sides have them.
    """
    return {
        "Code": [*changes(first.code(), second.code()), *changes(*_shared(first.sources(), second.sources()))],
        "Parameters": changes(first.parameters(), second.parameters()),
        "Data supplied": changes(first.supplied(), second.supplied()),
        "Data made": changes(*_shared(first.made(), second.made())),
        "Results": by_weight(changes(first.results(), second.results())),
        "Environment": changes(first.environment(), second.environment()),
    }


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Change]:
    """Names whose values differ."""
    names = sorted(first.keys() | second.keys())
    return [Change(name, first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)]


def environment(record: Mapping[str, Any]) -> dict[str, str]:
    """Machine and packages of one record."""
    machine, packages = record.get("machine", {}), record.get("packages", {})
    known = {name: str(machine[name]) for name in _MACHINE if name in machine}
    return {**known, **{f"package {name}": str(version) for name, version in packages.items()}}


def _shared(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Both sides, of names that both have."""
    names = first.keys() & second.keys()
    return {name: first[name] for name in names}, {name: second[name] for name in names}


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def lines(found: Mapping[str, Sequence[Change]], most: int) -> list[str]:
    """Return the differences by subject, at most ``most`` lines of each; the rest is counted."""
    shown = []
    for subject, differing in found.items():
        shown += [f"{subject}: {f'{len(differing)} differ' if differing else 'the same'}", *listed(differing, most)]
    return shown


def listed(found: Sequence[Change], most: int) -> list[str]:
    """Indented lines of the first ``most`` changes, and how many there are beyond."""
    rest = [f"  and {len(found) - most} more"] if len(found) > most else []
    return [*(f"  {change.line}" for change in found[:most]), *rest]


def by_weight(figures: Iterable[Change]) -> list[Change]:
    """Figures that moved furthest first; bounds of intervals and standard errors follow what they are about."""
    return sorted(figures, key=lambda change: (change.name.endswith(_UNCERTAINTY), -_distance(change)))


def _distance(change: Change) -> float:
    """How far a figure moved, relative to itself; without end if one side has none."""
    if not isinstance(change.first, float) or not isinstance(change.second, float):
        return float("inf")
    return abs(change.second - change.first) / max(abs(change.first), 1e-9)
