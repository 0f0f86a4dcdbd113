"""Differences of two runs: code, parameters, data, results, environment."""

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
    """A value that differs; None if one side has none."""

    name: str
    first: Any
    second: Any

    @property
    def line(self) -> str:
        """The change as text."""
        moved = ""
        if isinstance(self.first, float) and isinstance(self.second, float):
            moved = f"  ({self.second - self.first:+.6g})"
        return f"{self.name}: {_shown(self.first)} -> {_shown(self.second)}{moved}"


@dataclass(frozen=True)
class Account:
    """A run with everything behind it.

    Args:
        chain: executions behind its results, makers first; empty for the run alone.
    """

    run: Run
    chain: Sequence[Execution] = ()

    def runs(self) -> list[Run]:
        """Return all runs behind the results, this one last."""
        others = {execution.run.id: execution.run for execution in self.chain if execution.run.id != self.run.id}
        return [*others.values(), self.run]

    def stages(self) -> list[tuple[Run, dict[str, Any]]]:
        """Return the record of each stage; unfinished stages of the run come last."""
        behind = {execution.key: execution.run for execution in self.chain}
        own = {(self.run.id, name): self.run for name in self.run.stages()}
        return [(run, run.stages()[name]) for (_, name), run in {**behind, **own}.items()]

    def entries(self, kind: str) -> Iterator[tuple[str, str, str]]:
        """Yield dataset, path and hash of everything that the stages read (``deps``) or wrote (``outs``)."""
        for _, stage in self.stages():
            for entry in stage[kind]:
                yield stage["datasets"].get(entry["path"], ""), str(entry["path"]), str(entry["md5"])

    def sources(self) -> dict[str, str]:
        """Return source file -> hash."""
        files = {path for _, stage in self.stages() for path in stage["sources"]}
        return _united((path, md5[:8]) for _, path, md5 in self.entries("deps") if path in files)

    def supplied(self) -> dict[str, str]:
        """Return dataset -> hash of data that no stage made."""
        known = {path for _, path, _ in self.entries("outs")} | set(self.sources())
        entries = self.entries("deps")
        return _united((dataset or path, md5[:8]) for dataset, path, md5 in entries if path not in known)

    def made(self) -> dict[str, str]:
        """Return dataset -> hash of data that the stages made."""
        return _united((dataset, md5[:8]) for dataset, _, md5 in self.entries("outs"))

    def parameters(self) -> dict[str, Any]:
        """Return the stages' parameters by dotted name, with settings of catalog entries."""
        given = [values for _, stage in self.stages() for values in stage["params"].values()]
        blocks = {
            **self.run.record.get("parameters", {}),
            **{key: value for keys in given for key, value in keys.items()},
        }
        return {name: value for block, content in blocks.items() for name, value in flattened(content, block)}

    def results(self) -> dict[str, float]:
        """Return metrics by dotted name."""
        found = dict(self.run.record.get("metrics", {}))
        for run, stage in self.stages():
            written = {stage["datasets"].get(entry["path"]) for entry in stage["outs"]}
            found |= {name: values for name, values in run.record.get("metrics", {}).items() if name in written}
        return {name: value for values in found.values() for name, value in values.items()}

    def code(self) -> dict[str, Any]:
        """Return commit and recorded changes."""
        changed = self.run.record.get("code", {}).get("changed", [])
        return {"commit": self.run.tags.get("git.commit"), "changed files": ", ".join(changed)}

    def environment(self) -> dict[str, str]:
        """Return machine and packages."""
        return _united(pair for run in self.runs() for pair in environment(run.record).items())


def _united(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the value of each name; different values of several runs are joined."""
    values: dict[str, dict[str, None]] = {}
    for name, value in pairs:
        values.setdefault(name, {})[value] = None
    return {name: " and ".join(found) for name, found in values.items()}


def differences(first: Account, second: Account) -> dict[str, list[Change]]:
    """Return the differences of two runs with everything behind them, by subject.

    Source files and results of stages are compared only if both sides have them. Results of stages come in the order
    in which they were made, so that the first is where the difference starts.
    """
    order = {name: place for place, name in enumerate(first.made())}
    return {
        "Code": [*changes(first.code(), second.code()), *changes(*_shared(first.sources(), second.sources()))],
        "Parameters": changes(first.parameters(), second.parameters()),
        "Data supplied": changes(first.supplied(), second.supplied()),
        "Data made": sorted(changes(*_shared(first.made(), second.made())), key=lambda change: order[change.name]),
        "Results": by_weight(changes(first.results(), second.results())),
        "Environment": changes(first.environment(), second.environment()),
    }


def changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Change]:
    """Return the names whose values differ."""
    names = sorted(first.keys() | second.keys())
    return [Change(name, first.get(name), second.get(name)) for name in names if first.get(name) != second.get(name)]


def environment(record: Mapping[str, Any]) -> dict[str, str]:
    """Return machine and packages of a record."""
    machine, packages = record.get("machine", {}), record.get("packages", {})
    known = {name: str(machine[name]) for name in _MACHINE if name in machine}
    return {**known, **{f"package {name}": str(version) for name, version in packages.items()}}


def _shared(first: Mapping[str, str], second: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return both sides, restricted to their common names."""
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
    """Return the differences as text, at most ``most`` lines per subject."""
    shown = []
    for subject, differing in found.items():
        shown += [f"{subject}: {f'{len(differing)} differ' if differing else 'the same'}", *listed(differing, most)]
    return shown


def listed(found: Sequence[Change], most: int) -> list[str]:
    """Return indented lines of the first ``most`` changes, and the number of further ones."""
    rest = [f"  and {len(found) - most} more"] if len(found) > most else []
    return [*(f"  {change.line}" for change in found[:most]), *rest]


def by_weight(figures: Iterable[Change]) -> list[Change]:
    """Sort figures by relative change, largest first; interval bounds and standard errors come last."""
    return sorted(figures, key=lambda change: (change.name.endswith(_UNCERTAINTY), -_distance(change)))


def _distance(change: Change) -> float:
    """Return the relative change of a figure; infinite if one side has none."""
    if not isinstance(change.first, float) or not isinstance(change.second, float):
        return float("inf")
    return abs(change.second - change.first) / max(abs(change.first), 1e-9)
