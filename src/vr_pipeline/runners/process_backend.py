"""Nodes that need nothing of each other, at the same time in processes of this machine."""

import logging
import logging.handlers
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from kedro.pipeline.node import Node
from kedro.runner.task import Task

from vr_pipeline.errors import PipelineError
from vr_pipeline.runners.config import ProcessesRoute, Route
from vr_pipeline.runners.shipping import Outcome, execute, pack, unpack

_PATIENCE_SECONDS = 5.0
"""How long a process may take to end after it was asked to."""


def groups(nodes: Sequence[tuple[Node, Route]]) -> Iterator[list[tuple[Node, Route]]]:
    """Yield the nodes in their order, in groups that may run at the same time.

    A group of several nodes has neighbours with the same :class:`ProcessesRoute`, of which none uses a result of
    another, at most ``at_once`` of them.
    """
    group: list[tuple[Node, Route]] = []
    for node, route in nodes:
        made = {name for other, _ in group for name in other.outputs}
        joins = (
            bool(group)
            and isinstance(route, ProcessesRoute)
            and route == group[0][1]
            and len(group) < route.at_once
            and not made & set(node.inputs)
        )
        if group and not joins:
            yield group
            group = []
        group.append((node, route))
    if group:
        yield group


class Processes:
    """Executes nodes of a group in one new process each; a node alone, or on a GPU, in this process."""

    def run(self, task: Task, route: Route) -> None:
        task.execute()

    def run_together(self, tasks: Sequence[Task]) -> None:
        """Execute tasks at the same time. If one fails, the others are stopped.

        Raises:
            PipelineError: a node failed for a reason that the user can fix, or its process died.
            RemoteNodeError: a node failed for another reason.
        """
        if _has_gpu():
            # The models of two trainings seldom fit on one device.
            for task in tasks:
                task.execute()
            return
        import cloudpickle

        context, levels = multiprocessing.get_context("spawn"), _levels()
        started: list[Any] = []
        waiting: dict[Any, Task] = {}
        try:
            for task in tasks:
                cargo = cloudpickle.dumps(replace(pack(task), logging=levels))
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(cargo, sender), name=task.node.name)
                process.start()
                # Only the process then holds it, so that its death ends the connection.
                sender.close()
                started.append(process)
                waiting[receiver] = task
            while waiting:
                ready: Any
                for ready in wait(list(waiting)):
                    message = _received(ready, waiting[ready])
                    if isinstance(message, logging.LogRecord):
                        logging.getLogger(message.name).handle(message)
                    else:
                        unpack(message, waiting.pop(ready))
            for process in started:
                process.join(_PATIENCE_SECONDS)
        finally:
            _end(started)


def _received(receiver: Any, task: Task) -> Outcome | logging.LogRecord:
    try:
        return receiver.recv()  # type: ignore[no-any-return]
    except EOFError as error:
        raise PipelineError(
            f"The process of node '{task.node.name}' died without a message. Often memory is short: "
            "--runner-params=routes.train.backend=in_process runs one node after the other."
        ) from error


def _end(processes: Sequence[Any]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(_PATIENCE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _levels() -> dict[str, Any]:
    """Return the levels of this process's loggers; their handlers stay here."""
    from kedro.framework.project import LOGGING

    configured = {"root": logging.getLogger().level} | {
        name: logging.getLogger(name).level for name in LOGGING.data.get("loggers", {})
    }
    root = configured.pop("root")
    loggers = {name: {"level": level} for name, level in configured.items()}
    return {"version": 1, "incremental": True, "loggers": loggers, "root": {"level": root}}


class _LogsToParent(logging.handlers.QueueHandler):
    """Sends records through the connection that later sends the outcome."""

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send(record)  # type: ignore[attr-defined]


def _work(cargo: bytes, sender: Connection) -> None:
    """Run a shipment of the parent process, which has just started this one, and send its outcome."""
    import cloudpickle
    import kedro.framework.project  # noqa: F401 - sets logging up, which is replaced below

    # Ctrl-C reaches every process of a terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logs = _LogsToParent(sender)  # type: ignore[arg-type]
    logging.getLogger().handlers = [logs]
    # Two moving bars would overwrite each other.
    os.environ["TERM"] = "dumb"
    outcome = execute(cloudpickle.loads(cargo))
    with logs.lock or nullcontext():
        sender.send(outcome)
    logging.getLogger().removeHandler(logs)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
