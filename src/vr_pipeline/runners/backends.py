"""Backends that execute nodes."""

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from kedro.pipeline.node import Node
from kedro.runner.task import Task

from vr_pipeline.errors import InputError
from vr_pipeline.runners.config import RayRoute, Route, RunnerConfiguration, TorchrunRoute
from vr_pipeline.runners.process_backend import Processes
from vr_pipeline.work import use_loop

CONFIGURATION_FILE = "conf/<env>/runner.yml"


class Backend(Protocol):
    """Executes a node with loading and saving; returns after the outputs are saved, or raises the node's error."""

    def run(self, task: Task, route: Route) -> None:
        """Execute the task with the route's settings."""


class InProcess:
    """Executes nodes in the process of ``kedro run``."""

    def run(self, task: Task, route: Route) -> None:
        task.execute()


def check_routes(nodes: Sequence[tuple[Node, Route]], configuration: RunnerConfiguration) -> None:
    """Check all routes before anything runs.

    Raises:
        InputError: a package is missing, a route does not suit its node, or the machine lacks GPUs.
    """
    for node, route in nodes:
        if isinstance(route, RayRoute):
            _require_ray(f"node '{node.name}' is routed to the backend 'ray'")
        elif isinstance(route, TorchrunRoute):
            _check_torchrun(node, route)
    if configuration.execution.workers > 1:
        _require_ray(f"{configuration.execution.workers} workers need Ray")


def _require_ray(reason: str) -> None:
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            f"{reason}, but the package ray is not installed",
            remedy='install it with: pip install -c constraints.txt -e ".[ray]", or use in_process and one worker',
            file=CONFIGURATION_FILE,
        )


def _check_torchrun(node: Node, route: TorchrunRoute) -> None:
    if "train" not in node.tags:
        raise InputError(
            f"node '{node.name}' is not a training node and cannot run under torchrun",
            remedy="route only the tag 'train' to torchrun",
            file=CONFIGURATION_FILE,
        )
    check_gpus(route.processes)


def check_gpus(processes: int) -> None:
    """Check that this machine has a GPU for each process, if it has any.

    Raises:
        InputError: there are fewer GPUs.
    """
    import torch

    # Respects CUDA_VISIBLE_DEVICES, and does not start CUDA in this process.
    gpus = torch.cuda.device_count()
    if gpus and processes > gpus:
        raise InputError(
            f"{processes} processes are configured, but this machine has {gpus} GPU(s)",
            remedy="use at most one process per GPU (CUDA_VISIBLE_DEVICES counts)",
            file=CONFIGURATION_FILE,
            field="processes",
        )


@contextmanager
def open_backends(
    nodes: Sequence[tuple[Node, Route]], configuration: RunnerConfiguration
) -> Iterator[Mapping[str, Backend]]:
    """Yield the backends that the nodes need, started for the duration of a run.

    Raises:
        InputError: a cluster cannot be reached or lacks the configured resources.
    """
    from vr_pipeline.runners import torchrun_backend

    backends: dict[str, Backend] = {"in_process": InProcess(), "processes": Processes()}
    execution = configuration.execution
    with ExitStack() as stack:
        meetings = stack.enter_context(torchrun_backend.meetings([route for _, route in nodes]))
        backends["torchrun"] = torchrun_backend.Torchrun(meetings)
        if execution.workers > 1 or any(isinstance(route, RayRoute) for _, route in nodes):
            from vr_pipeline.runners import ray_backend, ray_pool

            stack.enter_context(ray_backend.connected(configuration.ray))
            for node, route in nodes:
                if isinstance(route, RayRoute):
                    needs: Mapping[str, float] = ray_backend.needs_of(route)
                    field = f"the route of node '{node.name}'"
                    if execution.workers > 1 and "train" not in node.tags:
                        # The node keeps its reservation while its workers run, which would otherwise wait forever.
                        needs = Counter(needs) + Counter(ray_backend.needs_of(execution))
                        field += " with execution.workers"
                    ray_backend.check_resources(needs, field)
            backends["ray"] = ray_backend.RayNodes(execution)
        if execution.workers > 1:
            ray_backend.check_resources(ray_backend.needs_of(execution), "execution")
            stack.enter_context(use_loop(ray_pool.pool_loop(execution)))
        yield backends
