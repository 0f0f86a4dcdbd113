"""The content of conf/<env>/runner.yml: backends of nodes by tag."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.runners.meeting import parse_address


class InProcessRoute(Parameters):
    """The node runs in the process of ``kedro run``."""

    backend: Literal["in_process"] = "in_process"


class ProcessesRoute(Parameters):
    """Nodes that need nothing of each other run at the same time, each in its own process of this machine.

    A node that has no such neighbour runs in the process of ``kedro run``, and on a machine with a GPU every node does.
    """

    backend: Literal["processes"] = "processes"
    at_once: int = Field(default=2, ge=1, description="number of nodes that may run at the same time")


class RayRoute(Parameters):
    """The node runs as one Ray task."""

    backend: Literal["ray"] = "ray"
    num_cpus: float = Field(default=1.0, ge=0, description="CPU cores reserved for the node")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs reserved for the node")
    memory_gib: float = Field(default=0.0, ge=0, description="memory reserved for the node, GiB; 0 reserves none")
    resources: dict[str, float] = Field(default_factory=dict, description="custom Ray resources, name to amount")
    max_retries: int = Field(default=1, ge=0, description="number of retries of a node after its worker dies")
    fresh_worker: bool = Field(
        default=True,
        description="use a new worker process for every node, which then frees its memory, including GPU memory; false "
        "saves start-up time if there is enough memory",
    )


class TorchrunRoute(Parameters):
    """The node runs in N processes under torch's elastic launch; rank 0 saves the outputs."""

    backend: Literal["torchrun"] = "torchrun"
    processes: int = Field(default=1, ge=1, description="processes on each machine")
    machines: int = Field(default=1, ge=1, description="number of machines, including this one")
    rendezvous: str = Field(
        default="localhost:0",
        description="host:port of this machine for the others; used only with several machines",
    )
    wait_minutes: float = Field(default=30.0, gt=0, description="how long to wait for the other machines, minutes")
    max_restarts: int = Field(
        default=0, ge=0, description="number of restarts of a machine's processes after a failure"
    )

    @model_validator(mode="after")
    def _several_machines_can_meet(self) -> TorchrunRoute:
        if self.machines == 1:
            return self
        _, port = parse_address(self.rendezvous)
        if port == 0:
            raise ValueError(f"{self.machines} machines need a 'rendezvous' with a fixed port, for instance host:29400")
        if self.max_restarts:
            raise ValueError("'max_restarts' is for one machine; with several, use the printed command to resume")
        return self


Route = Annotated[InProcessRoute | ProcessesRoute | RayRoute | TorchrunRoute, Field(discriminator="backend")]


class Execution(Parameters):
    """Work over many independent items inside a node."""

    workers: int = Field(default=1, ge=1, description="worker processes, each with its own model; 1 is a plain loop")
    num_cpus: float = Field(default=1.0, gt=0, description="CPU cores of each worker")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs of each worker")
    resources: dict[str, float] = Field(
        default_factory=dict,
        description="custom Ray resources of each worker, name to amount: places workers on machines that have them",
    )
    fresh_workers: bool = Field(
        default=True,
        description="use new worker processes for every node; false keeps them between nodes, which saves start-up "
        "time if there is enough memory",
    )


class RayCluster(Parameters):
    """The Ray cluster for the ``ray`` backend and for more than one worker."""

    address: str | None = Field(
        default=None, description="address of an existing cluster ('auto', 'ray://host:10001'); null starts one here"
    )
    num_cpus: int | None = Field(default=None, ge=1, description="CPU cores of a cluster started here; null for all")
    num_gpus: int | None = Field(default=None, ge=0, description="GPUs of a cluster started here; null for all")
    dashboard: bool = Field(default=False, description="whether a cluster started here has its dashboard")
    dashboard_host: str = Field(default="127.0.0.1", description="address the dashboard listens on")


class RunnerConfiguration(Parameters):
    """Backends of nodes: the first of ``routes`` whose tag a node has, else ``default``."""

    default: Route = Field(default_factory=InProcessRoute, description="route of nodes without one of these tags")
    routes: dict[str, Route] = Field(default_factory=dict, description="routes by tag of a node")
    execution: Execution = Field(default_factory=Execution)
    ray: RayCluster = Field(default_factory=RayCluster)
