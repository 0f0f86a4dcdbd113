"""Coordination of the machines of a training: a key-value store on the machine of ``kedro run``.

The run announces each training there. Other machines, with ``kedro join``, read the training from it, report that they
are alive, and learn when it is over. The processes of the training also use it for their rendezvous.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from vr_pipeline.errors import InputError
from vr_pipeline.runners.signals import signals_kept

if TYPE_CHECKING:
    from torch.distributed import Store

logger = logging.getLogger(__name__)

HERE = "127.0.0.1:0"
"""Address for processes of one machine: not reachable from others, with any free port."""

_LOOK_SECONDS = 1.0
_SILENCE_SECONDS = 60.0
"""Silence after which a machine counts as dead."""
_FAREWELL_SECONDS = 5.0
_CONFIGURATION_FILE = "conf/<env>/runner.yml"


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``.

    Raises:
        ValueError: it has another format.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        raise ValueError(f"'{address}' is not host:port")
    return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Launch:
    """An announced training.

    Attributes:
        number: of the training within the run, from 1.
        name: unique name of the training.
        node: the node that trains.
        machines: their number.
        processes: per machine.
        folder: the project; the same path on all machines.
        version: of this package.
        max_restarts: number of restarts of the processes after a failure.
    """

    number: int
    name: str
    node: str
    machines: int
    processes: int
    folder: str
    version: str
    max_restarts: int = 0


class Meeting:
    """The store, on the machine of the run.

    Args:
        address: ``host:port``, the only address it listens on; port 0 is any free one.

    Raises:
        InputError: it cannot listen there.
    """

    def __init__(self, address: str) -> None:
        from torch.distributed import TCPStore

        self.host, port = parse_address(address)
        try:
            # By default the store would listen on every interface.
            listening = socket.create_server(
                (self.host, port), family=socket.AF_INET6 if ":" in self.host else socket.AF_INET
            )
        except OSError as error:
            raise InputError(
                f"this machine cannot listen at {address} ({error.strerror or error})",
                remedy="use an address of the machine of 'kedro run', and a free port",
                file=_CONFIGURATION_FILE,
                field="rendezvous",
            ) from error
        self.port = listening.getsockname()[1]
        self.store: Store = TCPStore(
            self.host,
            self.port,
            is_master=True,
            wait_for_workers=False,
            # So that the launcher of the processes uses this store.
            multi_tenant=True,
            master_listen_fd=listening.detach(),
        )
        self._announced = 0

    @property
    def next_number(self) -> int:
        """The number of the training to announce."""
        return self._announced + 1

    @property
    def join_command(self) -> str:
        """The command for the other machines."""
        return f"kedro join {self.host}:{self.port}"

    @contextlib.contextmanager
    def training(self, launch: Launch, cargo: bytes, *, wait_minutes: float) -> Iterator[None]:
        """Announce a training, wait for all machines, and announce its end after the block.

        Raises:
            InputError: too few machines joined.
        """
        self._announced = launch.number
        self.store.set(f"cargo/{launch.number}", b64encode(cargo).decode())
        self.store.set("launch", json.dumps(asdict(launch)))
        try:
            self._wait_for_machines(launch, wait_minutes)
            yield
        finally:
            self.store.set(f"over/{launch.number}", "1")

    def _wait_for_machines(self, launch: Launch, minutes: float) -> None:
        needed, end, logged = launch.machines - 1, time.monotonic() + 60 * minutes, -1
        while (there := self.store.add(f"arrived/{launch.number}", 0)) < needed:
            if there != logged:
                logged = there
                missing = needed - there
                logger.info(
                    "Waiting for %d more machine(s): run '%s' there, in %s", missing, self.join_command, launch.folder
                )
            if time.monotonic() > end:
                raise InputError(
                    f"the training needs {launch.machines} machines, but {there + 1} joined within {minutes:g} minutes",
                    remedy=f"run '{self.join_command}' on the others, in this folder, and start the run again",
                    file=_CONFIGURATION_FILE,
                    field="machines",
                )
            time.sleep(0.2)

    def failure_of_others(self, number: int, *, seconds: float) -> bytes | None:
        """Return the failure that another machine reports within a time limit; None without one."""
        end = time.monotonic() + seconds
        while not self.store.check([f"failure/{number}"]):
            if time.monotonic() > end:
                return None
            time.sleep(0.1)
        return b64decode(self.store.get(f"failure/{number}"))

    def trouble_of_others(self, launch: Launch) -> Callable[[], str | None]:
        """Return a function that checks for failed or silent machines, and returns the trouble as a clause."""
        store = connect(self.host, self.port)
        heard: dict[int, tuple[bytes, float]] = {}

        def ask() -> str | None:
            if store.check([f"failure/{launch.number}"]):
                return "another machine failed"
            for rank in range(1, launch.machines):
                key = f"alive/{launch.number}/{rank}"
                said = bytes(store.get(key)) if store.check([key]) else b""
                last, when = heard.setdefault(rank, (said, time.monotonic()))
                if said != last:
                    heard[rank] = (said, time.monotonic())
                elif time.monotonic() - when > _SILENCE_SECONDS:
                    return f"machine {rank + 1} of {launch.machines} no longer answers"
            return None

        return ask

    def close(self, *, failed: bool) -> None:
        """Announce the end of the run, and wait a moment until the other machines have read it."""
        self.store.set("end", "failed" if failed else "finished")
        end = time.monotonic() + _FAREWELL_SECONDS
        while self.store.add("left", 0) < self.store.add("helpers", 0) and time.monotonic() < end:
            time.sleep(0.1)


def connect(host: str, port: int, *, seconds: float = 60.0) -> Store:
    """Connect to the store of a meeting. Raises torch's ``DistError`` if there is none."""
    from torch.distributed import TCPStore

    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=seconds))


class StoppedByOther(Exception):
    """A training was stopped because of another machine."""


@contextlib.contextmanager
def breaking_off(ask: Callable[[], str | None]) -> Iterator[None]:
    """Call ``ask`` every second while the block runs; an answer ends the block by a signal.

    The launcher of the processes only reacts to signals: it then ends its processes.

    Raises:
        StoppedByOther: with the answer.
        KeyboardInterrupt: a signal came from outside.
    """
    from torch.distributed.elastic.multiprocessing import SignalException

    answer: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(_LOOK_SECONDS):
            try:
                said = ask()
            except RuntimeError as error:  # of the store, when its machine is gone
                said = f"the connection broke ({str(error).splitlines()[0]})"
            if said is not None and not done.is_set():
                answer.append(said)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    with signals_kept():
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        except (SignalException, KeyboardInterrupt) as error:
            if answer:
                raise StoppedByOther(answer[0]) from error
            raise KeyboardInterrupt from error
        finally:
            done.set()
