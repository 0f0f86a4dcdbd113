"""Training nodes in several processes under torch's elastic launch."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import PipelineError
from vr_pipeline.runners.config import TorchrunRoute
from vr_pipeline.runners.shipping import Outcome, Shipment, execute, pack, unpack

if TYPE_CHECKING:
    from kedro.runner.task import Task

    from vr_pipeline.runners.config import Route


class Torchrun:
    """Launches the processes of one machine; every machine of the group runs the same command with its own rank.

    Each process runs the node; the one with rank 0 saves the outputs and tells the times.
    """

    def run(self, task: Task, route: Route) -> None:
        import cloudpickle
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        assert isinstance(route, TorchrunRoute)
        configuration = LaunchConfig(
            min_nodes=route.machines,
            max_nodes=route.machines,
            nproc_per_node=route.processes,
            run_id=task.run_id or "vr_pipeline",
            rdzv_backend="c10d",
            rdzv_endpoint=route.rendezvous,
            max_restarts=route.max_restarts,
            start_method="spawn",
        )
        with tempfile.TemporaryDirectory(prefix="vr_pipeline_") as folder:
            cargo = Path(folder) / "shipment"
            cargo.write_bytes(cloudpickle.dumps(pack(task)))
            try:
                outcomes = elastic_launch(configuration, _run_rank)(str(cargo))
            except ChildFailedError as error:
                for told in sorted(Path(folder).glob(f"{_FAILURE}*[0-9]")):
                    unpack(cloudpickle.loads(told.read_bytes()), task)
                raise PipelineError(f"A process of node '{task.node.name}' died: {error}") from error
        for outcome in outcomes.values():
            unpack(outcome, task)


_FAILURE = "failure-"


def _run_rank(cargo: str) -> Any:
    """Runs in each process. The file was written by the parent process in a folder of its own a moment ago.

    A process that fails leaves its account beside that file and ends, so that the launcher stops the others at once:
    they may be waiting for it.
    """
    import cloudpickle

    shipment: Shipment = cloudpickle.loads(Path(cargo).read_bytes())
    rank = os.environ["RANK"]
    outcome: Outcome = execute(shipment, saves=rank == "0")
    if outcome.trace is not None:
        told = Path(cargo).with_name(f"{_FAILURE}{int(rank):06d}")
        told.with_suffix(".part").write_bytes(cloudpickle.dumps(outcome))
        os.replace(told.with_suffix(".part"), told)
        sys.exit(1)
    return outcome
