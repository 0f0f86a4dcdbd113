"""Runs that were recorded while the tracking server was away, brought to it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from vr_pipeline.lineage.delivery import REPLACES
from vr_pipeline.lineage.gateway import judge
from vr_pipeline.lineage.models import MODEL, register
from vr_pipeline.lineage.record import RECORD, RECORD_FOLDER
from vr_pipeline.lineage.runs import INPUT, SOURCE, link_sources
from vr_pipeline.lineage.tracking import Connection

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

    What the server has of it from an upload that was cut off is deleted there and made again.

    Raises:
        MlflowException: the server rejects something.
        OSError: a file could not be read.
    """
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    client = server.client
    if half := run.data.tags.get(REPLACES):
        try:
            client.delete_run(half)
        except MlflowException as error:  # the store may have lost that, too
            if judge(error) != "gone":
                raise
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
    parameters = [Param(name, value) for name, value in run.data.params.items()]
    for start in range(0, len(parameters), 100):
        client.log_batch(run_id, params=parameters[start : start + 100])
    history = offline.client.get_metric_history
    metrics = [point for name in run.data.metrics for point in history(run.info.run_id, name)]
    for start in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run_id, metrics=metrics[start : start + _AT_ONCE])
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
