"""The places where a node can run, behind one small contract."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from kedro.pipeline.node import Node
from kedro.runner.task import Task

from vr_pipeline.errors import InputError
from vr_pipeline.runners.config import RayRoute, Route, RunnerConfiguration, TorchrunRoute
from vr_pipeline.work import use_loop

CONFIGURATION_FILE = "conf/<env>/runner.yml"


class Backend(Protocol):
    """Executes one node with its loading and saving; returns when the outputs are saved, or raises the node's error."""

    def run(self, task: Task, route: Route) -> None:
        """Execute the task by the given route."""


class InProcess:
    """The process of ``kedro run`` itself."""

    def run(self, task: Task, route: Route) -> None:
        task.execute()


def check_routes(nodes: Sequence[tuple[Node, Route]], configuration: RunnerConfiguration) -> None:
    """Reject routes that cannot be followed, before anything runs.

    Raises:
        InputError: a package is missing, a route does not suit its node, or a machine lacks what is asked for.
    """
    for node, route in nodes:
        if isinstance(route, RayRoute):
            _require_ray(f"node '{node.name}' is routed to the backend 'ray'")
        elif isinstance(route, TorchrunRoute):
            _check_torchrun(node, route)
    if configuration.execution.workers > 1:
        _require_ray(f"{configuration.execution.workers} workers are asked for")


def _require_ray(reason: str) -> None:
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            f"{reason}, and the package ray is not installed",
            remedy='install it with: pip install -c constraints.txt -e ".[ray]", or use in_process and one worker',
            file=CONFIGURATION_FILE,
        )


def _check_torchrun(node: Node, route: TorchrunRoute) -> None:
    if "train" not in node.tags:
        raise InputError(
            f"node '{node.name}' is no training node and cannot run under torchrun",
            remedy="route only the tag 'train' to torchrun",
            file=CONFIGURATION_FILE,
        )
    check_gpus(route.processes)


def check_gpus(processes: int) -> None:
    """Reject more processes than this machine has GPUs, if it has any.

    Raises:
        InputError: there are fewer.
    """
    import torch

    # As CUDA_VISIBLE_DEVICES allows, and without starting CUDA in this process.
    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise InputError(
            f"{processes} processes are asked for and this machine has {gpus} GPU(s)",
            remedy="start at most one process a GPU (CUDA_VISIBLE_DEVICES counts)",
            file=CONFIGURATION_FILE,
            field="processes",
        )


@contextmanager
def open_backends(
    nodes: Sequence[tuple[Node, Route]], configuration: RunnerConfiguration
) -> Iterator[Mapping[str, Backend]]:
    """Yield the backends that the nodes need, started for the length of a run.

    Raises:
        InputError: a cluster cannot be reached or lacks what is asked for.
    """
    from vr_pipeline.runners import torchrun_backend

    backends: dict[str, Backend] = {"in_process": InProcess()}
    execution = configuration.execution
    with ExitStack() as stack:
        meetings = stack.enter_context(torchrun_backend.meetings([route for _, route in nodes]))
        backends["torchrun"] = torchrun_backend.Torchrun(meetings)
        if execution.workers > 1 or any(isinstance(route, RayRoute) for _, route in nodes):
            from vr_pipeline.runners import ray_backend

            stack.enter_context(ray_backend.connected(configuration.ray))
            for node, route in nodes:
                if isinstance(route, RayRoute):
                    needs: Mapping[str, float] = ray_backend.needs_of(route)
                    field = f"the route of node '{node.name}'"
                    if execution.workers > 1 and "train" not in node.tags:
                        # The node keeps what it reserves while its workers run, which would wait for it for ever.
                        needs = Counter(needs) + Counter(ray_backend.needs_of(execution))
                        field += " with execution.workers"
                    ray_backend.check_resources(needs, field)
            backends["ray"] = ray_backend.RayNodes(execution)
        if execution.workers > 1:
            ray_backend.check_resources(ray_backend.needs_of(execution), "execution")
            stack.enter_context(use_loop(ray_backend.pool_loop(execution)))
        yield backends
