"""Write the last run's events to the file that Kedro-Viz shows.

Kedro-Viz's own hook records only complete runs of the sequential runner; this one records all.
"""

import json
import logging
from datetime import UTC, datetime
from hashlib import sha1
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from vr_pipeline.hooks.records import NodeRecordHook
from vr_pipeline.project.places import stored_at
from vr_pipeline.storage.atomic import write_text

logger = logging.getLogger(__name__)

EVENTS_FILE = Path(".viz") / "kedro_pipeline_events.json"


class VizStatusHook:
    """Writes durations and outcomes of nodes, and sizes of their outputs."""

    def __init__(self, nodes: NodeRecordHook) -> None:
        self._nodes = nodes
        self._project = Path()
        self._started = ""
        self._failed: dict[str, str] = {}

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        self._project, self._started, self._failed = Path(run_params["project_path"]), _now(), {}

    @hook_impl
    def on_node_error(self, error: Exception, node: Node) -> None:
        self._failed[node.name] = f"{type(error).__name__}: {error}"

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        self._write(pipeline, catalog, {"event": "after_pipeline_run", "timestamp": _now()})

    @hook_impl
    def on_pipeline_error(self, error: Exception, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        what = f"{type(error).__name__}: {error}"
        self._write(pipeline, catalog, {"event": "on_pipeline_error", "timestamp": _now(), "error": what})

    def _write(self, pipeline: Pipeline, catalog: CatalogProtocol, end: dict[str, Any]) -> None:
        events: list[dict[str, Any]] = [{"event": "before_pipeline_run", "timestamp": self._started}]
        for node in pipeline.nodes:
            place = {"node": node.name, "node_id": _identifier(str(node))}
            record = self._nodes.records.get(node.name)
            if node.name in self._failed:
                error = {"error": self._failed[node.name], "timestamp": _now()}
                events.append({"event": "on_node_error", **place, **error})
            elif record is not None:
                events.append({"event": "after_node_run", **place, "duration": record.seconds, "status": "success"})
            for name in record.saved if record is not None else ():
                dataset = {"dataset": name, "node_id": _identifier(name.partition("@")[0]), "status": "Available"}
                events.append({"event": "after_dataset_saved", **dataset, **_size(stored_at(catalog, name))})
        path = self._project / EVENTS_FILE
        try:
            write_text(path, json.dumps([*events, end], indent=1))
        except OSError as error:
            logger.warning("Kedro-Viz will not show this run: %s", error)


def _identifier(text: str) -> str:
    """Return Kedro-Viz's identifier of a node or dataset."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest()[:8]


def _size(place: Path | None) -> dict[str, int]:
    """Return the bytes of a file or folder under ``size``; nothing if it does not exist."""
    if place is None or not place.exists():
        return {}
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    return {"size": sum(file.stat().st_size for file in files)}


def _now() -> str:
    return datetime.now(tz=UTC).isoformat()
