"""Pipelines for Kedro-Viz: one box each, and few data between the boxes.

The registry hands out pipelines of this kind, so that ``kedro viz run``, ``kedro viz build`` and ``kedro graph`` draw
the same picture. Runs are not touched: Kedro's filters and sums make plain pipelines of the same nodes.
"""

from collections.abc import Iterable

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

RESULTS = frozenset({"evaluation_report", "evaluation_metrics"})
"""Final results: shown in the first view although nothing reads them."""


class PicturedPipeline(Pipeline):
    """A pipeline whose groups hide data that nothing outside needs.

    Kedro-Viz asks for the nodes of each group and draws beside its box what that group gives out. Results that nothing
    needs further (plots, reports) would stand there too; here they stand inside the box, so that the first view fits a
    screen and reads as the method.
    """

    def only_nodes_with_namespaces(self, node_namespaces: list[str]) -> Pipeline:
        group = super().only_nodes_with_namespaces(node_namespaces)
        return _Group(group.nodes, needed=(self - group).inputs())


class _Group(Pipeline):
    def __init__(self, nodes: Iterable[Node], *, needed: set[str]) -> None:
        super().__init__(nodes)
        self._needed = needed

    def outputs(self) -> set[str]:
        return {name for name in super().outputs() if name in self._needed or name in RESULTS}
