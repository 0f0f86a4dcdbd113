"""Duration and outputs of each node of a run."""

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from vr_pipeline.work import WorkPlan


@dataclass
class NodeRecord:
    """Seconds of a node, and sizes of its outputs.

    ``seconds`` includes loading and saving, since a work plan is executed while it is saved.
    """

    name: str
    started: float
    seconds: float = 0.0
    sizes: dict[str, str] = field(default_factory=dict)
    saved: list[str] = field(default_factory=list)


class NodeRecordHook:
    """Collects a :class:`NodeRecord` per node, in the order of execution."""

    def __init__(self) -> None:
        self.records: dict[str, NodeRecord] = {}
        self.started = perf_counter()

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self) -> None:
        self.records = {}
        self.started = perf_counter()

    @hook_impl(tryfirst=True)
    def before_dataset_loaded(self, node: Node) -> None:
        self._record(node)

    @hook_impl(tryfirst=True)
    def before_node_run(self, node: Node) -> None:
        self._record(node)

    @hook_impl(tryfirst=True)
    def after_node_run(self, node: Node) -> None:
        record = self._record(node)
        record.seconds = perf_counter() - record.started

    @hook_impl(tryfirst=True)
    def after_dataset_saved(self, dataset_name: str, data: Any, node: Node) -> None:
        record = self._record(node)
        record.seconds = perf_counter() - record.started
        record.saved.append(dataset_name)
        if size := size_of(data):
            record.sizes[dataset_name] = size

    def add(self, record: NodeRecord) -> None:
        """Add the record of a node that ran in another process."""
        self.records[record.name] = record

    def _record(self, node: Node) -> NodeRecord:
        return self.records.setdefault(node.name, NodeRecord(node.name, perf_counter()))


def size_of(data: Any) -> str:
    """Return the size of ``data`` in words: rows of a table (and failed ones), items of a plan; else an empty text."""
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        failed = int((data["status"] == "failed").sum()) if "status" in data else 0
        return f"{len(data)} rows" + (f", {failed} failed" if failed else "")
    if isinstance(data, WorkPlan):
        return f"{len(data.items)} {data.description}"
    return ""
