"""The chain of executions behind a result: which stage of which run made each thing that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from vr_pipeline.lineage.runs import Run


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
        run: the run.
        stage: name of the stage.
        inputs: what it read from other executions, with them.
        raw: data that no recorded run made: supplied files and shipped models.
        outputs: what it wrote.
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
        """The executions it read from, each with what it took from there."""
        grouped: dict[tuple[str, str], tuple[Execution, list[Content]]] = {}
        for content, maker in self.inputs.items():
            grouped.setdefault(maker.key, (maker, []))[1].append(content)
        return grouped


class Makers(Protocol):
    """What knows the run that made an input; a :class:`~vr_pipeline.lineage.runs.RunStore`."""

    def maker(self, dataset: str, md5: str, reader: Run) -> Run | None: ...


def trace(store: Makers, run: Run, dataset: str | None = None) -> list[Execution]:
    """The executions whose results nothing else in the run reads, with everything behind them.

    Args:
        store: finds runs by what they made.
        run: where to start.
        dataset: begin at the stage of the run that wrote this instead.

    Returns:
        where the chain ends; empty for a run without a record.
    """
    seen: dict[tuple[str, str], Execution] = {}
    stages = [name for name, stage in run.stages().items() if stage["outs"] or stage["complete"]]
    if dataset is not None:
        stages = [name for name in stages if dataset in _names(run, name, "outs")]
    found = [_execution(store, run, name, seen) for name in stages]
    read = {maker.key for execution in seen.values() for maker in execution.inputs.values()}
    return [execution for execution in found if execution.key not in read]


def _execution(store: Makers, run: Run, stage: str, seen: dict[tuple[str, str], Execution]) -> Execution:
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


def _maker(store: Makers, run: Run, reader: str, content: Content) -> tuple[Run, str] | None:
    """The run and stage that made a content: another stage of the same run, else another run."""
    for name in run.stages():
        if name != reader and content.md5 == _names(run, name, "outs").get(content.dataset):
            return run, name
    if not content.dataset:
        return None
    other = store.maker(content.dataset, content.md5, run)
    if other is None or other.id == run.id:
        return None
    return next(
        ((other, name) for name in other.stages() if _names(other, name, "outs").get(content.dataset) == content.md5),
        None,
    )


def _names(run: Run, stage: str, kind: str) -> dict[str, str]:
    return {content.dataset: content.md5 for content in _contents(run, stage, kind)}


def _contents(run: Run, stage: str, kind: str) -> Iterator[Content]:
    """Data of a stage; source files, which the commit stands for, are not data."""
    entry = run.stages()[stage]
    sources = set(entry["sources"])
    for listed in entry[kind]:
        path = str(listed["path"])
        if path not in sources:
            yield Content(entry["datasets"].get(path, ""), path, str(listed["md5"]))


def executions(ends: list[Execution]) -> list[Execution]:
    """Every execution of a chain once, makers before readers."""
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
    """The chain as a tree of text, results first; what was shown above is named and not repeated.

    A stage without a run belongs to the run of the stage that it hangs from.
    """
    shown: set[tuple[str, str]] = set()
    lines: list[str] = []

    def draw(
        execution: Execution, reader: Run | None, indent: str, branch: str, below: str, taken: list[Content]
    ) -> None:
        what = f"{names(taken)} <- " if taken else ""
        again = execution.key in shown and bool(execution.inputs or execution.raw)
        run = execution.run
        place = "" if again else f"  {run.started:%Y-%m-%d %H:%M}  commit {run.commit}"
        own = "" if reader is not None and reader.id == run.id else f"  run {run.short}{place}"
        lines.append(f"{indent}{branch}{what}{execution.stage}{own}{'  (as above)' if again else ''}")
        if again:
            return
        shown.add(execution.key)
        children = list(execution.makers().values())
        rest = ["  ".join(filter(None, (content.dataset, content.path, content.short))) for content in execution.raw]
        for position, (maker, contents) in enumerate(children):
            last = position == len(children) - 1 and not rest
            step = ("└─ ", "   ") if last else ("├─ ", "│  ")
            draw(maker, run, indent + below, *step, contents)
        for position, text in enumerate(rest):
            lines.append(f"{indent}{below}{'└─ ' if position == len(rest) - 1 else '├─ '}{text}")

    for end in ends:
        draw(end, None, "", "", "", [])
    return lines


def names(contents: list[Content]) -> str:
    """Datasets with their short hashes; of many only the first few."""
    listed = [f"{content.dataset or content.path} {content.short}" for content in contents[:3]]
    return ", ".join([*listed, *([f"{len(contents) - 3} more"] if len(contents) > 3 else [])])
