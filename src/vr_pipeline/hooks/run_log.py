"""The content of a run's record: parameters, numbers, curves, and files as they were at the end of the run."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from time import time
from typing import Any

from filelock import FileLock, Timeout

from vr_pipeline.hooks.live_curves import METRICS_A_CALL, CurveFollower, curve_metrics, metric_name
from vr_pipeline.lineage.delivery import RunDelivery
from vr_pipeline.lineage.gateway import Target
from vr_pipeline.lineage.secrets import without_secrets

LIVE_CURVES = Path("logs") / "live_curves"
"""Folder of the project for rows of training logs to send, visible to all machines of a run."""
SPOOL = Path("logs") / "tracking"
"""Folder of the project for files to send."""
_VALUE_LENGTH = 6000
_PARAMETERS_A_CALL = 100


class RunLog:
    """Prepares records, which the gateway of a run delivers."""

    def __init__(self, delivery: RunDelivery, project: Path) -> None:
        self.delivery, self.gateway = delivery, delivery.gateway
        self._project, self._spool = project, Spool(project / SPOOL)
        self._follower: CurveFollower | None = None
        self.recipe_curves: dict[str, list[Any]] = {}
        """Points of the curves by recipe."""

    def parameters(self, flat: Mapping[str, Any]) -> None:
        """Record parameters by dotted name, without secrets."""
        from mlflow.entities import Param

        # Secrets are recognised by the names of their settings.
        plain = {name: without_secrets(value, name) for name, value in flat.items()}
        entries = [Param(metric_name(name), str(value)[:_VALUE_LENGTH]) for name, value in plain.items()]
        for start in range(0, len(entries), _PARAMETERS_A_CALL):
            part = entries[start : start + _PARAMETERS_A_CALL]
            self.gateway.put("parameters", partial(_log_batch, params=part))

    def numbers(self, values: Mapping[str, float]) -> None:
        """Record single numbers."""
        from mlflow.entities import Metric

        now = int(time() * 1000)
        self.metrics([Metric(metric_name(name), value, now, 0) for name, value in values.items()])

    def curve(self, name: str, rows: Iterable[Mapping[str, Any]], *, of_recipe: bool = False) -> None:
        """Record the rows of a training log, except those already sent by :meth:`follow_curves`."""
        now = int(time() * 1000)
        metrics = [metric for row in rows for metric in curve_metrics(name, row, now)]
        if of_recipe:
            self.recipe_curves.setdefault(name, []).extend(metrics)
        self.metrics(self._follower.missing(metrics) if self._follower is not None else metrics)

    def metrics(self, metrics: list[Any]) -> None:
        """Record points of curves."""
        for start in range(0, len(metrics), METRICS_A_CALL):
            part = metrics[start : start + METRICS_A_CALL]
            self.gateway.put("metrics", partial(_log_batch, metrics=part))

    def text(self, text: str, name: str) -> None:
        """Record a text as a file of the run."""
        self.gateway.put(name, lambda to: to.client.log_text(to.run_id, text, name), len(text))

    def result(self, name: str, place: Path) -> None:
        """Record a file, or a folder under ``name``, as it is now."""
        self.files(name, self._spool.take(place), name if place.is_dir() else None)

    def picture(self, name: str, place: Path) -> None:
        """Record a PNG as an image, which MLflow shows beside its charts."""
        from mlflow import Image

        image = self._spool.take(place)
        self.gateway.put(
            name, lambda to: to.client.log_image(to.run_id, Image(str(image)), key=name, step=0), image.stat().st_size
        )

    def link(self, place: Path, target: Path) -> None:
        """Link or copy a file, as it is now, into a folder of :meth:`new_folder`."""
        _link(str(place), str(target))

    def new_folder(self, name: str) -> Path:
        """Return an empty folder for files that :meth:`files` records."""
        return self._spool.folder(name)

    def files(self, what: str, place: Path, folder: str | None) -> None:
        """Record a file or folder that is complete and no longer changes."""
        if place.is_dir():
            size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
            self.gateway.put(what, lambda to: to.client.log_artifacts(to.run_id, str(place), folder), size)
        else:
            size = place.stat().st_size
            self.gateway.put(what, lambda to: to.client.log_artifact(to.run_id, str(place)), size)

    def follow_curves(self) -> Path:
        """Start to record rows of training logs that are written to the returned folder."""
        # The project is locked, so anything there is left from killed runs.
        shutil.rmtree(self._project / LIVE_CURVES, ignore_errors=True)
        folder = self._project / LIVE_CURVES / self.delivery.run_id
        self._follower = CurveFollower(folder, self.metrics)
        return folder

    def stop_following(self) -> None:
        """Record the last rows."""
        if self._follower is not None:
            self._follower.stop()

    def remove_files(self) -> None:
        """Remove the files kept for delivery; none can be sent afterwards."""
        self._spool.remove()


def _log_batch(to: Target, **what: Any) -> None:
    to.client.log_batch(to.run_id, **what)


class Spool:
    """Files to send: hard links, which take no space, or copies where the file system has none.

    Args:
        place: folder with one folder per run that sends.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._root: Path | None = None
        self._count = 0

    def folder(self, name: str) -> Path:
        """Return a new, empty folder whose last part is ``name``."""
        if self._root is None:
            self._place.mkdir(parents=True, exist_ok=True)
            self._remove_dead()
            self._root = Path(tempfile.mkdtemp(dir=self._place))
            self._lock = FileLock(self._root / ".lock")
            self._lock.acquire(timeout=0)
        self._count += 1
        made = self._root / str(self._count) / name
        made.mkdir(parents=True)
        return made

    def take(self, place: Path) -> Path:
        """Link or copy a file or folder as it is now, and return its new path.

        Raises:
            OSError: neither is possible.
        """
        target = self.folder("") / place.name
        if place.is_dir():
            shutil.copytree(place, target, copy_function=_link)
        else:
            _link(str(place), str(target))
        return target

    def remove(self) -> None:
        """Remove everything."""
        if self._root is not None:
            self._lock.release()
            shutil.rmtree(self._root, ignore_errors=True)
            self._root = None

    def _remove_dead(self) -> None:
        """Remove folders of killed runs; an active process holds its lock."""
        for other in self._place.iterdir():
            with contextlib.suppress(Timeout, OSError), FileLock(other / ".lock").acquire(timeout=0):
                shutil.rmtree(other, ignore_errors=True)


def _link(source: str, target: str) -> str:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
    return target
