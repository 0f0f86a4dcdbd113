"""Training nodes in several processes under torch's elastic launch, on one or several machines."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kedro.runner.task import Task

from vr_pipeline import __version__
from vr_pipeline.errors import PipelineError
from vr_pipeline.runners.config import Route, TorchrunRoute
from vr_pipeline.runners.meeting import HERE, Launch, Meeting, StoppedByOther, breaking_off
from vr_pipeline.runners.shipping import Outcome, Shipment, execute, pack, unpack
from vr_pipeline.storage.atomic import replaced

_ACCOUNT_SECONDS = 5.0
_PATIENCE_SECONDS = 900
"""How long launchers wait for each other after all machines have joined."""


@contextmanager
def meetings(routes: Sequence[Route]) -> Iterator[Mapping[str, Meeting]]:
    """Yield address -> meeting of all rendezvous, open for the duration of a run.

    Raises:
        InputError: this machine cannot listen at an address.
    """
    addresses = {route.rendezvous for route in routes if isinstance(route, TorchrunRoute) and route.machines > 1}
    opened = {address: Meeting(address) for address in sorted(addresses)}
    failed = True
    try:
        yield opened
        failed = False
    finally:
        for meeting in opened.values():
            meeting.close(failed=failed)


class Torchrun:
    """Launches the processes of this machine, and makes other machines launch theirs.

    Each process runs the node; rank 0, on this machine, saves the outputs and returns the times.
    """

    def __init__(self, open_meetings: Mapping[str, Meeting]) -> None:
        self._meetings = open_meetings

    def run(self, task: Task, route: Route) -> None:
        import cloudpickle

        assert isinstance(route, TorchrunRoute)
        meeting = self._meetings[route.rendezvous] if route.machines > 1 else Meeting(HERE)
        launch = Launch(
            number=meeting.next_number,
            name=f"{task.run_id or 'vr_pipeline'}-{meeting.next_number}",
            node=task.node.name,
            machines=route.machines,
            processes=route.processes,
            folder=str(Path.cwd()),
            version=__version__,
            max_restarts=route.max_restarts,
        )
        cargo = cloudpickle.dumps(pack(task))
        with meeting.training(launch, cargo, wait_minutes=route.wait_minutes):
            try:
                ask = meeting.trouble_of_others(launch)
                outcomes = run_processes(launch, cargo, 0, meeting.host, meeting.port, ask)
            except ProcessesFailed as error:
                outcomes = [*error.outcomes]
                if route.machines > 1:
                    # The cause may be on another machine.
                    explained = any(outcome.account is not None for outcome in outcomes)
                    seconds = 0.0 if explained else _ACCOUNT_SECONDS
                    elsewhere = meeting.failure_of_others(launch.number, seconds=seconds)
                    outcomes += cloudpickle.loads(elsewhere) if elsewhere else []
                # Errors that users can fix come before their effects in other processes.
                for outcome in sorted(outcomes, key=lambda outcome: outcome.account is None):
                    unpack(outcome, task)
                raise PipelineError(f"A process of node '{task.node.name}' died: {error}") from error
        for outcome in outcomes:
            unpack(outcome, task)


class ProcessesFailed(Exception):
    """Processes of this machine failed, or were ended because others did.

    Attributes:
        outcomes: of the processes that reported one, the first to fail first.
    """

    def __init__(self, message: str, outcomes: Sequence[Outcome]) -> None:
        super().__init__(message)
        self.outcomes = outcomes


def run_processes(
    launch: Launch, cargo: bytes, rank: int, host: str, port: int, ask: Callable[[], str | None]
) -> list[Outcome]:
    """Run a training's processes of this machine.

    Args:
        rank: number of this machine.
        ask: called every second; an answer is the reason to stop.

    Raises:
        ProcessesFailed: one of them failed, here or elsewhere.
    """
    import cloudpickle
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    configuration = LaunchConfig(
        min_nodes=launch.machines,
        max_nodes=launch.machines,
        nproc_per_node=launch.processes,
        run_id=launch.name,
        # The meeting determines the machines; static ranks keep rank 0 on the machine of the run.
        rdzv_backend="static",
        rdzv_endpoint=f"{host}:{port}",
        rdzv_configs={"rank": rank, "timeout": _PATIENCE_SECONDS},
        max_restarts=launch.max_restarts,
        start_method="spawn",
    )
    with tempfile.TemporaryDirectory(prefix="vr_pipeline_") as folder:
        file = Path(folder) / "shipment"
        file.write_bytes(cargo)
        try:
            with breaking_off(ask):
                outcomes: Mapping[int, Outcome] = elastic_launch(configuration, _run_rank)(str(file))
        except (ChildFailedError, StoppedByOther) as error:
            files = sorted(Path(folder).glob(f"{_FAILURE}*[0-9]"), key=lambda path: path.stat().st_mtime_ns)
            raise ProcessesFailed(str(error), [cloudpickle.loads(path.read_bytes()) for path in files]) from error
    return list(outcomes.values())


_FAILURE = "failure-"


def _run_rank(cargo: str) -> Any:
    """Run the node in a launched process; the parent process has just written the file to a private folder.

    A process that fails writes its outcome beside that file and exits, so that the launcher stops the others, which may
    be waiting for it.
    """
    import cloudpickle

    # Ctrl-C reaches every process of a terminal; only the launcher, which ends the others, reports it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    shipment: Shipment = cloudpickle.loads(Path(cargo).read_bytes())
    rank = os.environ["RANK"]
    outcome: Outcome = execute(shipment, saves=rank == "0")
    if outcome.trace is not None:
        with replaced(Path(cargo).with_name(f"{_FAILURE}{int(rank):06d}")) as temporary:
            temporary.write_bytes(cloudpickle.dumps(outcome))
        sys.exit(1)
    return outcome
