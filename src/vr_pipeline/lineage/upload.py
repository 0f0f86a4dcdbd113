"""Runs that were recorded while the tracking server was away, brought to it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.lineage.delivery import REPLACES
from vr_pipeline.lineage.models import MODEL, register
from vr_pipeline.lineage.record import RECORD, RECORD_FOLDER
from vr_pipeline.lineage.runs import INPUT, SOURCE, link_sources
from vr_pipeline.lineage.tracking import Connection

if TYPE_CHECKING:
    from mlflow import MlflowClient

UPLOADED = "uploaded.as"
"""Tag of an offline run: the run it became on the server."""
_FROM = "offline.run"
_AT_ONCE = 1000
_DERIVED = (SOURCE, MODEL, UPLOADED, REPLACES)


def waiting(offline: Connection) -> list[Any]:
    """Offline runs that have ended and are not on the server yet, oldest first."""
    runs = offline.client.search_runs(
        [offline.experiment], "attributes.status != 'RUNNING'", order_by=["attributes.start_time ASC"], max_results=1000
    )
    return [run for run in runs if UPLOADED not in run.data.tags]


def upload(offline: Connection, server: Connection, run: Any) -> str:
    """Copy one run with parameters, every point of its curves, files and models; returns its identifier there.

    A copy that was cut off is taken up: what it has is deleted on the server and made again.

    Raises:
        MlflowException: the server refused.
        OSError: a file could not be read.
    """
    client = server.client
    if half := run.data.tags.get(REPLACES):
        _delete(client, half)
    for half in client.search_runs([server.experiment], f"tags.`{_FROM}` = '{run.info.run_id}'"):
        client.delete_run(half.info.run_id)
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith(_DERIVED)}
    made = client.create_run(
        server.experiment,
        start_time=run.info.start_time,
        tags={**tags, _FROM: run.info.run_id},
        run_name=run.info.run_name,
    )
    run_id = str(made.info.run_id)
    _copy_numbers(offline.client, client, run, run_id)
    inputs = {name.removeprefix(INPUT): md5 for name, md5 in tags.items() if name.startswith(INPUT)}
    link_sources(client, server.experiment, run_id, inputs)
    with tempfile.TemporaryDirectory() as folder:
        if offline.client.list_artifacts(run.info.run_id):
            place = offline.client.download_artifacts(run.info.run_id, "", folder)
            client.log_artifacts(run_id, place)
        record = Path(folder) / RECORD_FOLDER / RECORD
        if run.info.status == "FINISHED" and record.is_file():
            register(client, run_id, json.loads(record.read_text(encoding="utf-8")), inputs)
    client.set_terminated(run_id, run.info.status, end_time=run.info.end_time)
    # Only now: whatever breaks before is done again.
    offline.client.set_tag(run.info.run_id, UPLOADED, run_id)
    return run_id


def _delete(client: MlflowClient, run_id: str) -> None:
    """Delete what the store has of a run that it did not take whole; it may have lost that, too."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" and "must be in the 'active' state" not in str(error):
            raise


def _copy_numbers(source: MlflowClient, target: MlflowClient, run: Any, run_id: str) -> None:
    from mlflow.entities import Param

    parameters = [Param(name, value) for name, value in run.data.params.items()]
    for start in range(0, len(parameters), 100):
        target.log_batch(run_id, params=parameters[start : start + 100])
    metrics = [point for name in run.data.metrics for point in source.get_metric_history(run.info.run_id, name)]
    for start in range(0, len(metrics), _AT_ONCE):
        target.log_batch(run_id, metrics=metrics[start : start + _AT_ONCE])
