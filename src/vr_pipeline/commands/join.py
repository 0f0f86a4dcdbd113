"""The command ``kedro join``: add a machine to the trainings of a run."""

from __future__ import annotations

import json
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo

if TYPE_CHECKING:
    from torch.distributed import Store

    from vr_pipeline.runners.meeting import Launch
    from vr_pipeline.runners.shipping import Outcome

_INTERRUPTED = 130


@click.command(name="join")
@click.argument("address")
@click.option("--wait", "minutes", default=30.0, show_default=True, help="Minutes to wait for the run to begin.")
def join(address: str, minutes: float) -> None:
    """Add this machine to the trainings of a run.

    The run listens at ADDRESS (host:port). Use this command in the project's folder, which all machines share under
    the same path. The run sets the training and the number of processes. The command writes no files and ends with the
    run.
    """
    from vr_pipeline.runners.meeting import parse_address

    try:
        host, port = parse_address(address)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="ADDRESS") from error
    with plain_errors():
        try:
            _take_part(host, port, minutes)
        except KeyboardInterrupt:
            echo("Stopped. If the run is training, it cannot continue without this machine.", err=True)
            sys.exit(_INTERRUPTED)


def _take_part(host: str, port: int, minutes: float) -> None:
    from torch.distributed import DistError

    from vr_pipeline.runners.meeting import Launch

    store = _connected(host, port, minutes)
    try:
        store.add("helpers", 1)
        echo(f"Joined the run at {host}:{port}. Waiting for it to train.")
        done = 0
        while not store.check(["end"]):
            launch = Launch(**json.loads(store.get("launch"))) if store.check(["launch"]) else None
            if launch is None or launch.number == done or store.check([f"over/{launch.number}"]):
                time.sleep(0.5)
                continue
            done = launch.number
            _train(store, host, port, launch)
        ending = store.get("end").decode()
        store.add("left", 1)
    except DistError as error:
        raise PipelineError(
            f"The run at {host}:{port} can no longer be reached: it was stopped, or its machine failed. Start the run "
            "again, then this command."
        ) from error
    if ending != "finished":
        raise PipelineError(f"The run at {host}:{port} failed; its output has the reason.")
    echo(f"The run at {host}:{port} has finished; this machine took part in {done} training(s).")


def _connected(host: str, port: int, minutes: float) -> Store:
    from torch.distributed import DistError

    from vr_pipeline.runners.meeting import connect

    end = time.monotonic() + 60 * minutes
    while True:
        try:
            return connect(host, port, seconds=max(1.0, min(10.0, end - time.monotonic())))
        except DistError as error:
            if time.monotonic() > end:
                raise PipelineError(
                    f"No run listens at {host}:{port}: start one there, with machines above 1 and this address as "
                    "rendezvous (conf/<env>/runner.yml)"
                ) from error


def _train(store: Store, host: str, port: int, launch: Launch) -> None:
    import cloudpickle

    from vr_pipeline.runners.shipping import Outcome
    from vr_pipeline.runners.torchrun_backend import ProcessesFailed, run_processes

    def report(outcomes: Sequence[Outcome]) -> None:
        store.set(f"failure/{launch.number}", b64encode(cloudpickle.dumps(list(outcomes))).decode())

    try:
        _check(launch)
        rank = store.add(f"arrived/{launch.number}", 1)
        if rank >= launch.machines:
            echo(f"{launch.node} has its {launch.machines} machines; waiting for the next training.")
            return
        echo(f"Training {launch.node} as machine {rank + 1} of {launch.machines}.")
        cargo = b64decode(store.get(f"cargo/{launch.number}"))
        run_processes(launch, cargo, rank, host, port, _signs_of_life(host, port, launch, rank))
    except InputError as error:
        report([Outcome(account=str(error), trace=str(error))])
        raise
    except ProcessesFailed as error:
        report(error.outcomes)
        echo(f"{launch.node} failed; the output of the run has the reason.", err=True)


def _check(launch: Launch) -> None:
    """Check project, version and GPUs before the run waits for this machine."""
    from vr_pipeline import __version__
    from vr_pipeline.project.folder import project_folder
    from vr_pipeline.runners.backends import check_gpus

    if Path(launch.folder) != project_folder():
        raise InputError(
            f"the run's project is {launch.folder}, here it is {project_folder()}",
            remedy="share the project's folder between the machines, under the same path, and run the command there",
        )
    if launch.version != __version__:
        raise InputError(
            f"the run uses vr_pipeline {launch.version}, this machine {__version__}",
            remedy="install the same version on all machines",
        )
    check_gpus(launch.processes)


def _signs_of_life(host: str, port: int, launch: Launch, rank: int) -> Callable[[], str | None]:
    from vr_pipeline.runners.meeting import connect

    store = connect(host, port)

    def ask() -> str | None:
        store.set(f"alive/{launch.number}/{rank}", str(time.monotonic()))
        # After a successful training the processes end by themselves.
        return "the run stopped" if store.check([f"over/{launch.number}"]) else None

    return ask
