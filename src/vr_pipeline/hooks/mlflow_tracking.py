"""One MLflow run a ``kedro run``, written by the driving process whatever runs the nodes."""

from __future__ import annotations

import logging
import math
import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from kedro.config import MissingConfigException
from kedro.framework.hooks import hook_impl
from pydantic import BaseModel, Field, ValidationError

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.hooks.records import NodeRecordHook
from vr_pipeline.hooks.summary import peak_memory_gib, stored_at

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

CONFIGURATION_FILE = "conf/<env>/mlflow.yml"
CURVES = "training_log_"
_PLACE = "place"
_VALUE_LENGTH = 6000
_TAG_LENGTH = 5000
_PARAMETERS_A_CALL, _METRICS_A_CALL = 100, 1000


class MlflowConfiguration(Parameters):
    """The content of conf/<env>/mlflow.yml."""

    enabled: bool = Field(default=True, description="whether runs are recorded")
    tracking_uri: str = Field(default="sqlite:///mlflow.db", description="relative SQLite files start at the project")
    experiment: str = Field(default="vr_pipeline", min_length=1, description="experiment that holds the runs")
    artifacts: str = Field(default="mlartifacts", description="folder or address for files of a new experiment")


class MlflowHook:
    """Records parameters, metrics, curves and marked files.

    Catalog entries choose: ``metadata: {mlflow: true}`` stores the file or folder as an artifact,
    ``metadata: {mlflow: {metrics: true}}`` turns the numbers of a JSON dataset into metrics (and stores the file).
    Tables named ``training_log_*`` become curves over their column ``step``.

    Args:
        nodes: the hook that recorded which nodes have finished.
    """

    def __init__(self, nodes: NodeRecordHook) -> None:
        self._nodes = nodes
        self._configuration = MlflowConfiguration(enabled=False)
        self._project = Path()
        self._client: MlflowClient | None = None
        self._run_id = ""
        self._environment: dict[str, str | None] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._project = Path(context.project_path)
        try:
            settings = dict(context.config_loader["mlflow"])
        except MissingConfigException:
            settings = {"enabled": False}
        try:
            self._configuration = MlflowConfiguration.model_validate(settings)
        except ValidationError as error:
            first = error.errors()[0]
            raise InputError(
                f"{first['msg']} (got {first['input']!r})",
                remedy="correct the file",
                file=CONFIGURATION_FILE,
                field=".".join(str(part) for part in first["loc"]),
            ) from error

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        self._client, self._run_id = None, ""
        if not self._configuration.enabled:
            return
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        uri = anchored_uri(self._configuration.tracking_uri, self._project)
        try:
            client = MlflowClient(tracking_uri=uri)
            experiment = self._experiment(client)
            names = ",".join(run_params.get("pipeline_names") or ["__default__"])
            tags = self._tags(run_params, names)
            _close_dead_runs(client, experiment, tags[_PLACE])
            run = client.create_run(experiment, tags=tags, run_name=f"{names} {run_params['run_id']}")
            self._log_parameters(client, run.info.run_id, pipeline, catalog)
        except MlflowException as error:
            raise InputError(
                f"MLflow cannot record this run at {uri} ({first_line(error)})",
                remedy="repair or move the database, or set enabled: false",
                file=CONFIGURATION_FILE,
            ) from error
        self._client, self._run_id = client, run.info.run_id
        # Workers and nodes that call MLflow themselves write into this run and start none of their own.
        self._set_environment({"MLFLOW_TRACKING_URI": uri, "MLFLOW_RUN_ID": self._run_id})

    @hook_impl
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        self._close("FINISHED", catalog)

    @hook_impl
    def on_pipeline_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        if self._client is not None:
            from vr_pipeline.runners.device_runner import RunInterrupted

            self._client.set_tag(self._run_id, "error", f"{type(error).__name__}: {error}"[:_TAG_LENGTH])
            self._close("KILLED" if isinstance(error, RunInterrupted) else "FAILED", catalog)

    def _experiment(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self._configuration.experiment)
        if found is not None:
            return str(found.experiment_id)
        artifacts = self._configuration.artifacts
        if "://" not in artifacts:
            artifacts = (self._project / artifacts).resolve().as_uri()
        return str(client.create_experiment(self._configuration.experiment, artifact_location=artifacts))

    def _tags(self, run_params: Mapping[str, Any], names: str) -> dict[str, str]:
        from vr_pipeline.lineage.provenance import dvc_state, git_state, machine, package_versions

        run = {
            "kedro.run_id": run_params["run_id"],
            "kedro.pipelines": names,
            "kedro.env": run_params.get("env") or "",
            _PLACE: f"{platform.node()}:{self._project}",
            "kedro.runtime_params": str(run_params.get("runtime_params") or {}),
        }
        tags = {**run, **git_state(self._project), **dvc_state(self._project), **package_versions(), **machine()}
        return {name: value[:_TAG_LENGTH] for name, value in tags.items()}

    @staticmethod
    def _log_parameters(client: MlflowClient, run_id: str, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        from mlflow.entities import Param

        inputs = sorted(name for name in pipeline.inputs() if name.startswith("params:"))
        flat = {
            name: value
            for source in inputs
            for name, value in flattened(catalog.load(source), source.removeprefix("params:"))
        }
        entries = [Param(metric_name(name), str(value)[:_VALUE_LENGTH]) for name, value in flat.items()]
        for start in range(0, len(entries), _PARAMETERS_A_CALL):
            client.log_batch(run_id, params=entries[start : start + _PARAMETERS_A_CALL])

    def _close(self, status: str, catalog: CatalogProtocol) -> None:
        """Record what finished nodes wrote, also of a run that failed later on."""
        if self._client is None:
            return
        from mlflow.exceptions import MlflowException

        try:
            self._log_times()
            for record in self._nodes.records.values():
                for name in record.saved:
                    self._log_dataset(name, catalog)
        except (MlflowException, OSError) as error:
            # The results themselves are safe in the catalog; losing their copy in the log must not fail the run.
            logger.warning("MLflow could not record everything: %s", first_line(error))
        finally:
            self._client.set_terminated(self._run_id, status)
            self._set_environment({})
            self._client = None

    def _log_times(self) -> None:
        seconds = {f"seconds.{record.name}": record.seconds for record in self._nodes.records.values()}
        self._log_metrics({**seconds, "peak_memory_gib": peak_memory_gib()})

    def _log_dataset(self, name: str, catalog: CatalogProtocol) -> None:
        marked = mark_of(catalog, name)
        if name.startswith(CURVES):
            self._log_curves(name.removeprefix(CURVES), catalog.load(name))
        if isinstance(marked, Mapping) and marked.get("metrics"):
            numbers = {
                key: float(value)
                for key, value in flattened(catalog.load(name), name)
                if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            }
            self._log_metrics(numbers)
        if marked and self._client is not None:
            place = stored_at(catalog, name)
            if place is not None and place.is_dir():
                self._client.log_artifacts(self._run_id, str(place), artifact_path=name)
            elif place is not None and place.is_file():
                self._client.log_artifact(self._run_id, str(place))

    def _log_curves(self, strategy: str, table: Any) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        columns = [name for name in table.select_dtypes("number").columns if name != "step"]
        self._send(
            [
                Metric(metric_name(f"{strategy}/{column}"), float(value), now, int(step))
                for column in columns
                for step, value in zip(table["step"], table[column], strict=True)
                if math.isfinite(value)
            ]
        )

    def _log_metrics(self, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        self._send([Metric(metric_name(name), value, now, 0) for name, value in numbers.items()])

    def _send(self, metrics: list[Any]) -> None:
        if self._client is None:
            return
        for start in range(0, len(metrics), _METRICS_A_CALL):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + _METRICS_A_CALL])

    def _set_environment(self, values: dict[str, str]) -> None:
        """Put back what an earlier call replaced, then set ``values``."""
        for name, before in self._environment.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
        self._environment = {name: os.environ.get(name) for name in values}
        os.environ.update(values)


def _close_dead_runs(client: MlflowClient, experiment: str, place: str) -> None:
    """Mark runs of this project that were killed: the project's lock is held here, so none of them can be alive."""
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        if run.data.tags.get(_PLACE) == place:
            client.set_terminated(run.info.run_id, "KILLED")


def mark_of(catalog: CatalogProtocol, name: str) -> Any:
    """What a catalog entry's metadata say under ``mlflow``; None without any."""
    metadata = getattr(catalog.get(name), "metadata", None)
    return metadata.get("mlflow") if isinstance(metadata, Mapping) else None


def anchored_uri(uri: str, project: Path) -> str:
    """A tracking address whose relative SQLite file starts at the project, wherever the command was typed."""
    prefix = "sqlite:///"
    if uri.startswith(prefix) and not uri.startswith(prefix + "/"):
        return f"{prefix}{(project / uri.removeprefix(prefix)).as_posix()}"
    return uri


def flattened(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested models, mappings and sequences with dotted names; short lists of scalars stay whole."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from flattened(entry, f"{prefix}.{key}")
    elif isinstance(value, list | tuple) and any(
        isinstance(entry, Mapping | list | tuple | BaseModel) for entry in value
    ):
        for position, entry in enumerate(value):
            yield from flattened(entry, f"{prefix}.{position}")
    else:
        yield prefix, value


def metric_name(name: str) -> str:
    """A name that MLflow accepts: letters, digits and ``_-./ :``, at most 250 characters."""
    return re.sub(r"[^\w\-./ :]", "_", name)[:250]


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
