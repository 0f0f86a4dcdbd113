"""The content of conf/<env>/runner.yml: which nodes go where, by their tags."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.runners.meeting import parse_address


class InProcessRoute(Parameters):
    """The node runs in the process of ``kedro run``."""

    backend: Literal["in_process"] = "in_process"


class RayRoute(Parameters):
    """The node runs as one Ray task."""

    backend: Literal["ray"] = "ray"
    num_cpus: float = Field(default=1.0, ge=0, description="CPU cores reserved for the node")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs reserved for the node")
    memory_gib: float = Field(default=0.0, ge=0, description="memory reserved for the node, GiB; 0 reserves none")
    resources: dict[str, float] = Field(default_factory=dict, description="custom Ray resources, name to amount")
    max_retries: int = Field(default=1, ge=0, description="how often a node is tried again when its worker dies")
    fresh_worker: bool = Field(
        default=True,
        description="a new worker process for every node, whose memory, a GPU's too, returns when it ends; false saves "
        "its start where memory is plenty",
    )


class TorchrunRoute(Parameters):
    """The node runs in N processes under torch's elastic launch; rank 0 saves the outputs."""

    backend: Literal["torchrun"] = "torchrun"
    processes: int = Field(default=1, ge=1, description="processes on each machine")
    machines: int = Field(default=1, ge=1, description="machines that take part, this one included")
    rendezvous: str = Field(
        default="localhost:0",
        description="host:port of this machine where the others find it; matters with several machines only",
    )
    wait_minutes: float = Field(default=30.0, gt=0, description="how long to wait for the other machines, minutes")
    max_restarts: int = Field(
        default=0, ge=0, description="how often the processes of one machine are started again after a failure"
    )

    @model_validator(mode="after")
    def _several_machines_can_meet(self) -> TorchrunRoute:
        if self.machines == 1:
            return self
        _, port = parse_address(self.rendezvous)
        if port == 0:
            raise ValueError(
                f"{self.machines} machines need a 'rendezvous' with a port that the others can name, as in host:29400"
            )
        if self.max_restarts:
            raise ValueError("'max_restarts' is for one machine: on several the printed command resumes")
        return self


Route = Annotated[InProcessRoute | RayRoute | TorchrunRoute, Field(discriminator="backend")]


class Execution(Parameters):
    """Work over many independent items inside a node."""

    workers: int = Field(default=1, ge=1, description="worker processes, each with a model of its own; 1 is a loop")
    num_cpus: float = Field(default=1.0, gt=0, description="CPU cores of each worker")
    num_gpus: float = Field(default=0.0, ge=0, description="GPUs of each worker")
    fresh_workers: bool = Field(
        default=True,
        description="new worker processes for every node; false keeps them from node to node, which saves their start "
        "where memory is plenty",
    )


class RayCluster(Parameters):
    """The Ray cluster for the ``ray`` backend and for more than one worker."""

    address: str | None = Field(
        default=None, description="of an existing cluster ('auto', 'ray://host:10001'); none starts one here"
    )
    num_cpus: int | None = Field(default=None, ge=1, description="CPU cores of a cluster started here; none is all")
    num_gpus: int | None = Field(default=None, ge=0, description="GPUs of a cluster started here; none is all")
    dashboard: bool = Field(default=False, description="whether a cluster started here has its dashboard")
    dashboard_host: str = Field(default="127.0.0.1", description="address the dashboard listens on")


class RunnerConfiguration(Parameters):
    """Which backend runs which node.

    A node goes the way of the first entry of ``routes`` whose tag it has, else the way of ``default``.
    """

    default: Route = Field(default_factory=InProcessRoute, description="nodes without a route of their own")
    routes: dict[str, Route] = Field(default_factory=dict, description="tag of a node to its route")
    execution: Execution = Field(default_factory=Execution)
    ray: RayCluster = Field(default_factory=RayCluster)
