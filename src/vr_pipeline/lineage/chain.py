"""The chain of executions behind a result: the stage and run that made each of its inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from vr_pipeline.lineage.runs import Run, RunStore


@dataclass(frozen=True)
class Content:
    """One state of a dataset or file: its name, place and hash."""

    dataset: str
    path: str
    md5: str

    @property
    def short(self) -> str:
        """The first eight characters of the hash."""
        return self.md5[:8]


@dataclass(eq=False)
class Execution:
    """A stage as one run executed it.

    Args:
        inputs: what it read from other executions, with them.
        raw: data that no recorded run made: supplied files and shipped models.
    """

    run: Run
    stage: str
    inputs: dict[Content, Execution] = field(default_factory=dict)
    raw: list[Content] = field(default_factory=list)
    outputs: list[Content] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        """Run and stage."""
        return self.run.id, self.stage

    def makers(self) -> dict[tuple[str, str], tuple[Execution, list[Content]]]:
        """Return the executions that made its inputs, each with those inputs."""
        grouped: dict[tuple[str, str], tuple[Execution, list[Content]]] = {}
        for content, maker in self.inputs.items():
            grouped.setdefault(maker.key, (maker, []))[1].append(content)
        return grouped


def trace(store: RunStore, run: Run, dataset: str | None = None) -> list[Execution]:
    """Return the last executions of a run, whose results no other stage reads, with everything behind them.

    Args:
        dataset: start at the stage that wrote this dataset instead.

    Returns:
        the ends of the chain; empty for a run without a record.
    """
    seen: dict[tuple[str, str], Execution] = {}
    stages = [
        name
        for name, stage in run.stages().items()
        if (stage["outs"] or stage["complete"] if dataset is None else dataset in _hashes(run, name))
    ]
    found = [_execution(store, run, name, seen) for name in stages]
    read = {maker.key for execution in seen.values() for maker in execution.inputs.values()}
    return [execution for execution in found if execution.key not in read]


def _execution(store: RunStore, run: Run, stage: str, seen: dict[tuple[str, str], Execution]) -> Execution:
    if (run.id, stage) in seen:
        return seen[run.id, stage]
    execution = Execution(run, stage, outputs=list(_contents(run, stage, "outs")))
    seen[execution.key] = execution
    for content in _contents(run, stage, "deps"):
        maker = _maker(store, run, stage, content)
        if maker is None:
            execution.raw.append(content)
        else:
            execution.inputs[content] = _execution(store, *maker, seen)
    return execution


def _maker(store: RunStore, run: Run, reader: str, content: Content) -> tuple[Run, str] | None:
    """Return the run and stage that made a content: another stage of the same run, else another run."""
    found = next(_writers(run, content, reader), None)
    if found is not None or not content.dataset:
        return found
    other = store.maker(content.dataset, content.md5, run)
    return next(_writers(other, content), None) if other is not None and other.id != run.id else None


def _writers(run: Run, content: Content, reader: str = "") -> Iterator[tuple[Run, str]]:
    for name in run.stages():
        if name != reader and _hashes(run, name).get(content.dataset) == content.md5:
            yield run, name


def _hashes(run: Run, stage: str) -> dict[str, str]:
    """Return dataset -> hash of a stage's outputs."""
    return {content.dataset: content.md5 for content in _contents(run, stage, "outs")}


def _contents(run: Run, stage: str, kind: str) -> Iterator[Content]:
    """Yield the data of a stage, without source files, which the commit identifies."""
    entry = run.stages()[stage]
    sources = set(entry["sources"])
    for listed in entry[kind]:
        path = str(listed["path"])
        if path not in sources:
            yield Content(entry["datasets"].get(path, ""), path, str(listed["md5"]))


def executions(ends: list[Execution]) -> list[Execution]:
    """Return every execution of a chain once, makers before readers."""
    ordered: dict[tuple[str, str], Execution] = {}

    def visit(execution: Execution) -> None:
        if execution.key not in ordered:
            for maker in execution.inputs.values():
                visit(maker)
            ordered[execution.key] = execution

    for end in ends:
        visit(end)
    return list(ordered.values())


def tree_lines(ends: list[Execution]) -> list[str]:
    """Return the chain as a text tree, results first; repeated parts are only named.

    A stage shown without a run belongs to the run of the stage above it.
    """
    shown: set[tuple[str, str]] = set()
    lines: list[str] = []

    def draw(execution: Execution, reader: Run | None, first: str, rest: str, taken: list[Content]) -> None:
        run, again = execution.run, execution.key in shown and bool(execution.inputs or execution.raw)
        what = f"{names(taken)} <- " if taken else ""
        place = "" if again else f"  {run.started:%Y-%m-%d %H:%M}  commit {run.commit}"
        own = "" if reader is not None and reader.id == run.id else f"  run {run.short}{place}"
        lines.append(f"{first}{what}{execution.stage}{own}{'  (as above)' if again else ''}")
        if again:
            return
        shown.add(execution.key)
        below: list[tuple[Execution, list[Content]] | Content] = [*execution.makers().values(), *execution.raw]
        for child in below:
            branch, indent = ("└─ ", "   ") if child is below[-1] else ("├─ ", "│  ")
            if isinstance(child, Content):
                text = "  ".join(filter(None, (child.dataset, child.path, child.short)))
                lines.append(f"{rest}{branch}{text}")
            else:
                draw(child[0], run, rest + branch, rest + indent, child[1])

    for end in ends:
        draw(end, None, "", "", [])
    return lines


def names(contents: list[Content]) -> str:
    """Return the first datasets with their short hashes, and the number of further ones."""
    listed = [f"{content.dataset or content.path} {content.short}" for content in contents[:3]]
    return ", ".join([*listed, *([f"{len(contents) - 3} more"] if len(contents) > 3 else [])])
