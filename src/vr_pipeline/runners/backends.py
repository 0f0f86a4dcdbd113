"""The places where a node can run, behind one small contract."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from vr_pipeline.errors import InputError
from vr_pipeline.runners.config import InProcessRoute, RayRoute, Route, RunnerConfiguration, TorchrunRoute

if TYPE_CHECKING:
    from kedro.pipeline.node import Node
    from kedro.runner.task import Task

CONFIGURATION_FILE = "conf/<env>/runner.yml"


class Backend(Protocol):
    """Executes one node with its loading and saving; returns when the outputs are saved, or raises the node's error."""

    def run(self, task: Task, route: Route) -> None:
        """Execute the task by the given route."""


class InProcess:
    """The process of ``kedro run`` itself."""

    def run(self, task: Task, route: Route) -> None:
        task.execute()


def check_route(node: Node, route: Route, configuration: RunnerConfiguration) -> None:
    """Refuse a route that cannot be followed, before anything runs.

    Raises:
        InputError: the backend's package is missing, or the route asks for what the machine does not have.
    """
    if isinstance(route, InProcessRoute):
        return
    if isinstance(route, TorchrunRoute) and "train" not in node.tags:
        raise InputError(
            f"node '{node.name}' is no training node and cannot run under torchrun",
            remedy="route only the tag 'train' to torchrun",
            file=CONFIGURATION_FILE,
        )
    if isinstance(route, RayRoute) and importlib.util.find_spec("ray") is None:
        raise InputError(
            f"node '{node.name}' is routed to the backend 'ray', which is not installed",
            remedy='install it with: pip install -c constraints.txt -e ".[ray]", or route the node to in_process',
            file=CONFIGURATION_FILE,
        )
    raise InputError(
        f"node '{node.name}' is routed to the backend '{route.backend}', which this version cannot drive",
        remedy="route the node to in_process",
        file=CONFIGURATION_FILE,
    )


@contextmanager
def open_backends(configuration: RunnerConfiguration) -> Iterator[Mapping[str, Backend]]:
    """The backends that the configuration names, started for the length of a run."""
    yield {"in_process": InProcess()}
