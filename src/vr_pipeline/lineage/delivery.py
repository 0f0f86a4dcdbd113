"""Delivery of records to the tracking store: directly, to the offline store, or from there later."""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vr_pipeline.lineage.gateway import Gateway, Target, first_line, judge, within
from vr_pipeline.lineage.models import MODEL, register
from vr_pipeline.lineage.record import RECORD, RECORD_FOLDER
from vr_pipeline.lineage.runs import INPUT, PARENT, SOURCE, link_sources
from vr_pipeline.lineage.tracking import Connection, MlflowConfiguration, connect

logger = logging.getLogger(__name__)

_LISTED = 8
REPLACES = "offline.replaces"
"""Tag of an offline run: the incomplete run in the store."""
UPLOADED = "uploaded.as"
"""Tag of an offline run: its run on the server."""
_FROM = "offline.run"
_AT_ONCE = 1000
_DERIVED = (SOURCE, MODEL, UPLOADED, REPLACES)


class RunDelivery:
    """The record of one run.

    Args:
        patience: seconds per call.
        started: start of the run in milliseconds since 1970; None for now.

    Raises:
        Exception: any error of the store when the run is created.
    """

    def __init__(
        self, connection: Connection, tags: Mapping[str, str], name: str, patience: float, started: int | None = None
    ) -> None:
        self.uri, self._offline = connection.uri, connection.offline
        self._tags, self._name, self._patience = dict(tags), name, patience
        create, experiment = connection.client.create_run, connection.experiment
        made = within(patience, lambda: create(experiment, start_time=started, tags=self._tags, run_name=name))
        run_id = str(made.info.run_id)
        if not run_id:
            raise ValueError("the server at this address is not an MLflow server")
        self.run_id, self._started = run_id, made.info.start_time
        self.gateway = Gateway(Target(connection.client, connection.experiment, run_id), patience=patience)

    def finish(self, status: str, configuration: MlflowConfiguration, project: Path) -> list[str]:
        """Deliver the rest and end the run.

        Returns:
            sentences on what is missing in the store, which are also logged as warnings.
        """
        gateway = self.gateway
        gateway.put("the end of the run", lambda to: to.client.set_terminated(to.run_id, status))
        left = gateway.close()
        troubles = [f"MLflow has no {loss}." for loss in gateway.lost[:_LISTED]]
        if len(gateway.lost) > _LISTED:
            troubles.append(f"MLflow lacks {len(gateway.lost) - _LISTED} more.")
        if left:
            troubles.append(self._keep(configuration, project, left))
        for trouble in troubles:
            logger.warning("%s", trouble)
        return troubles

    def _keep(self, configuration: MlflowConfiguration, project: Path, left: list[str]) -> str:
        """Record everything offline; return a sentence on where it is, or what is lost."""
        listed = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        reason = self.gateway.gone or self.gateway.trouble
        lost = f"MLflow at {self.uri} did not accept the record of this run ({reason})"
        if self._offline:
            return f"{lost}: {listed} are lost."
        try:
            offline = connect(configuration, project, offline=True)
            tags = {**self._tags, REPLACES: self.gateway.target.run_id}
            again = RunDelivery(offline, tags, self._name, self._patience, self._started)
        except Exception as error:  # noqa: BLE001 - whatever the other store raises
            return f"{lost}: {listed} are lost, since recording offline failed too ({first_line(error)})."
        for step in self.gateway.steps:
            again.gateway.put(step.what, step.send, step.size)
        still = again.gateway.close()
        where = configuration.offline_uri.removeprefix("sqlite:///")
        if still:
            return f"{lost}; in {where} {', '.join(still[:5])} are lost too ({again.gateway.trouble})."
        return f"{lost}: it is in {where} until 'kedro lineage upload' sends it."


def waiting(offline: Connection) -> list[Any]:
    """Return finished offline runs that are not on the server yet, oldest first."""
    runs = offline.client.search_runs(
        [offline.experiment], "attributes.status != 'RUNNING'", order_by=["attributes.start_time ASC"], max_results=1000
    )
    return [run for run in runs if UPLOADED not in run.data.tags]


def upload(offline: Connection, server: Connection, run: Any) -> str:
    """Copy a run with parameters, all points of its curves, files and models; return its identifier on the server.

    Remains of an interrupted upload are deleted on the server first.

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
        except MlflowException as error:  # the store may no longer have it
            if judge(error) != "gone":
                raise
    for half in client.search_runs([server.experiment], f"tags.`{_FROM}` = '{run.info.run_id}'"):
        client.delete_run(half.info.run_id)
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith(_DERIVED)}
    if PARENT in tags:
        # The parent started earlier, so it was sent before.
        tags[PARENT] = offline.client.get_run(tags[PARENT]).data.tags.get(UPLOADED, "")
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
    # Last, so that an interrupted upload is repeated.
    offline.client.set_tag(run.info.run_id, UPLOADED, run_id)
    return run_id
