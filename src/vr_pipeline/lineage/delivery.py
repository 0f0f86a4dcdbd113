"""A run on its way to its tracking store, and to the offline store where that one does not take it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from vr_pipeline.lineage.gateway import Gateway, Target, first_line, within
from vr_pipeline.lineage.tracking import Connection, MlflowConfiguration, connect

logger = logging.getLogger(__name__)

_LISTED = 8
REPLACES = "offline.replaces"
"""Tag of an offline run: the run that its store has in part."""


class RunDelivery:
    """What one run records.

    Args:
        connection: the store.
        tags, name: of the run.
        patience: seconds for one call.
        started: when the run began, in milliseconds since 1970; None for now.

    Raises:
        Exception: whatever the store raises when the run is made.
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
            raise ValueError("what answers there is no MLflow server")
        self.run_id, self._started = run_id, made.info.start_time
        self.gateway = Gateway(Target(connection.client, connection.experiment, run_id), patience=patience)

    def finish(self, status: str, configuration: MlflowConfiguration, project: Path) -> list[str]:
        """Deliver what is left and end the run.

        Args:
            status: of the run.
            configuration: has the offline store.
            project: where that starts.

        Returns:
            in sentences, what is not in the store; logged as warnings, too.
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
        """Record everything offline; says in a sentence where it is, or what is lost."""
        listed = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        reason = self.gateway.gone or self.gateway.trouble
        lost = f"MLflow at {self.uri} did not take the record of this run ({reason})"
        if self._offline:
            return f"{lost}: {listed} are lost."
        try:
            offline = connect(configuration, project, offline=True)
            tags = {**self._tags, REPLACES: self.gateway.target.run_id}
            again = RunDelivery(offline, tags, self._name, self._patience, self._started)
        except Exception as error:  # noqa: BLE001 - whatever the other store raises
            return f"{lost}: {listed} are lost, since it cannot be kept offline either ({first_line(error)})."
        for step in self.gateway.steps:
            again.gateway.put(step.what, step.send, step.size)
        still = again.gateway.close()
        where = configuration.offline_uri.removeprefix("sqlite:///")
        if still:
            return f"{lost}; in {where} {', '.join(still[:5])} are lost, too ({again.gateway.trouble})."
        return f"{lost}: it is kept in {where} until 'kedro lineage upload' sends it."
