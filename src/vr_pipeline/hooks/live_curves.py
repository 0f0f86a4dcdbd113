"""Send training logs to MLflow while their node runs, on any machine."""

from __future__ import annotations

import logging
import math
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from vr_pipeline.runtime.live_curves import TIME, WrittenRows, send_to

if TYPE_CHECKING:
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 10.0
"""Longest delay of a row."""

METRICS_A_CALL = 1000
"""MLflow's limit of metrics per call."""

_LOG = re.compile(r"training_log_(?P<what>.+)|(?P<before>.+)_training_log")


def curve_name(dataset: str) -> str | None:
    """Return the name of a training log's curves, 'mpo' for ``training_log_mpo``; None for other datasets."""
    found = _LOG.fullmatch(dataset)
    return (found["what"] or found["before"]) if found else None


def metric_name(name: str) -> str:
    """Return a name that MLflow accepts: letters, digits and ``_-./ :``, at most 250 characters."""
    return re.sub(r"[^\w\-./ :]", "_", name)[:250]


class CurveHook:
    """Sets the log to which training code sends its rows, in the process that runs the node."""

    @hook_impl
    def before_node_run(self, node: Node) -> None:
        send_to(next((name for name in node.outputs if curve_name(name)), None))

    @hook_impl
    def after_node_run(self) -> None:
        send_to(None)

    @hook_impl
    def on_node_error(self) -> None:
        send_to(None)


class CurveFollower:
    """Sends rows in a separate thread as they are written, each step of a curve once.

    Args:
        folder: where rows are written; created now and removed by :meth:`stop`.
        send: accepts at most :data:`METRICS_A_CALL` metrics and returns immediately.
    """

    def __init__(
        self, folder: Path, send: Callable[[list[Metric]], None], *, seconds: float = SECONDS_BETWEEN_LOOKS
    ) -> None:
        self._folder, self._send, self._seconds = folder, send, seconds
        folder.mkdir(parents=True, exist_ok=True)
        self._rows = WrittenRows(folder)
        self._sent: set[tuple[str, int]] = set()
        self._troubled = False
        self._end = threading.Event()
        # A daemon thread: a process that has to exit must not wait for a disk.
        self._thread = threading.Thread(target=self._follow, name="curves to MLflow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send the remaining rows and end."""
        self._end.set()
        self._thread.join()
        self._look()
        shutil.rmtree(self._folder, ignore_errors=True)

    def missing(self, metrics: Iterable[Metric]) -> list[Metric]:
        """Return the metrics that have not been sent."""
        return [metric for metric in metrics if (metric.key, metric.step) not in self._sent]

    def _follow(self) -> None:
        while not self._end.wait(self._seconds):
            self._look()

    def _look(self) -> None:
        try:
            new = self._new()
        except OSError as error:
            if not self._troubled:
                logger.warning("Live curves cannot be read at present (they arrive later): %s", error)
            self._troubled = True
            return
        for start in range(0, len(new), METRICS_A_CALL):
            self._send(new[start : start + METRICS_A_CALL])

    def _new(self) -> list[Metric]:
        found = []
        for log, row in self._rows.new():
            for metric in curve_metrics(str(curve_name(log)), row, int(row[TIME])):
                # A training that resumes from a checkpoint writes later steps again.
                if (metric.key, metric.step) not in self._sent:
                    self._sent.add((metric.key, metric.step))
                    found.append(metric)
        return found


def curve_metrics(curve: str, row: Mapping[str, Any], milliseconds: int) -> list[Metric]:
    """Return a row of a training log as metrics of its step, without missing or infinite values."""
    from mlflow.entities import Metric

    return [
        Metric(metric_name(f"{curve}/{column}"), float(value), milliseconds, int(row["step"]))
        for column, value in row.items()
        if column not in ("step", TIME) and math.isfinite(value)
    ]
