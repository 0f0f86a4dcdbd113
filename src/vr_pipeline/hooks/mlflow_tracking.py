"""One MLflow run a ``kedro run``, written by the driving process whatever runs the nodes."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from kedro.config import MissingConfigException
from kedro.framework.hooks import hook_impl

from vr_pipeline.errors import InputError
from vr_pipeline.hooks.live_curves import METRICS_A_CALL, CurveFollower, curve_metrics, curve_name, metric_name
from vr_pipeline.hooks.records import NodeRecordHook
from vr_pipeline.hooks.summary import stored_at
from vr_pipeline.lineage.figures import flattened, numbers
from vr_pipeline.lineage.models import model_entry, register, score_sources
from vr_pipeline.lineage.record import RECORD_FOLDER, RunRecorder
from vr_pipeline.lineage.runs import INPUT, OUTPUT, link_sources, set_tags
from vr_pipeline.lineage.tracking import (
    CONFIGURATION_FILE,
    MlflowConfiguration,
    connect,
    experiment_tags,
    first_line,
    read_configuration,
)
from vr_pipeline.live_curves import FOLDER, checkpoint_row
from vr_pipeline.memory import peak_memory

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

LIVE_CURVES = Path("logs") / "live_curves"
"""Folder in the project for rows of training logs on their way; all machines of a run see it."""

VALIDATION_LOGS = "validation_log_"
_PLACE = "place"
_VALUE_LENGTH = 6000
_TAG_LENGTH = 5000
_PARAMETERS_A_CALL = 100


class MlflowHook:
    """Records parameters, metrics, curves, marked files, and what the results came from.

    Catalog entries choose: ``metadata: {mlflow: true}`` stores the file or folder as an artifact,
    ``metadata: {mlflow: {metrics: true}}`` turns the numbers of a JSON dataset into metrics (and stores the file),
    ``metadata: {mlflow: {model: NAME, ...}}`` registers a model (:mod:`vr_pipeline.lineage.models`).
    Tables named ``training_log_*`` or ``*_training_log`` become curves over their column ``step``: while the node runs
    if it tells its rows (:mod:`vr_pipeline.live_curves`), else at the end. Those named ``validation_log_*`` add the
    rewards of judged checkpoints, of which step 0 is the original.

    Args:
        nodes: the hook that recorded which nodes have finished.
    """

    def __init__(self, nodes: NodeRecordHook) -> None:
        self._nodes = nodes
        self._configuration = MlflowConfiguration(enabled=False)
        self._project = Path()
        self._loader: Any = None
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._run_id = ""
        self._recorder: RunRecorder | None = None
        self._environment: dict[str, str | None] = {}
        self._follower: CurveFollower | None = None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._project = Path(context.project_path)
        self._loader = context.config_loader
        try:
            settings = dict(context.config_loader["mlflow"])
        except MissingConfigException:
            settings = {"enabled": False}
        self._configuration = read_configuration(settings)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        self._client, self._run_id, self._recorder = None, "", None
        if not self._configuration.enabled:
            return
        # Before anything is hashed: a server that is not there is told in seconds.
        connection = connect(self._configuration, self._project)
        from mlflow.exceptions import MlflowException

        if connection.offline:
            logger.warning(
                "The MLflow server does not answer: the run is recorded here until 'kedro lineage upload' sends it."
            )
        names = list(run_params.get("pipeline_names") or ["__default__"])
        flat = _flat_parameters(pipeline, catalog)
        recorder = self._recorder_of(names, pipeline, run_params.get("env"))
        record = recorder.start(flat)
        inputs = recorder.hashes("inputs")
        tags = self._tags(run_params, names, recorder)
        client, experiment = connection.client, connection.experiment
        try:
            _close_dead_runs(client, experiment, tags[_PLACE])
            run_name = f"{','.join(names)} {run_params['run_id']}"
            run_id = client.create_run(experiment, tags=tags, run_name=run_name).info.run_id
            _log_parameters(client, run_id, flat)
            link_sources(client, experiment, run_id, inputs)
            with tempfile.TemporaryDirectory() as folder:
                recorder.write_files(Path(folder))
                recorder.write_record(Path(folder))
                client.log_artifacts(run_id, folder, RECORD_FOLDER)
        except (MlflowException, OSError) as error:
            raise InputError(
                f"MLflow cannot record this run at {connection.uri} ({first_line(error)})",
                remedy="repair or move the store, or set enabled: false",
                file=CONFIGURATION_FILE,
            ) from error
        logger.debug("Recording run %s of commit %s", run_id, record["code"]["commit"])
        self._client, self._experiment, self._run_id, self._recorder = client, experiment, run_id, recorder
        # Workers and nodes that call MLflow themselves write into this run and start none of their own.
        environment = {"MLFLOW_TRACKING_URI": connection.uri, "MLFLOW_RUN_ID": self._run_id}
        if any(curve_name(name) for node in pipeline.nodes for name in node.outputs):
            environment[FOLDER] = str(self._follow_curves())
        self._set_environment(environment)

    @hook_impl
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        self._close("FINISHED", catalog)

    @hook_impl
    def on_pipeline_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        if self._client is not None:
            from vr_pipeline.runners.device_runner import RunInterrupted

            self._client.set_tag(self._run_id, "error", f"{type(error).__name__}: {error}"[:_TAG_LENGTH])
            self._close("KILLED" if isinstance(error, RunInterrupted) else "FAILED", catalog)

    def _follow_curves(self) -> Path:
        """Start to bring rows of training logs to MLflow; the folder where they are told."""
        # The project's lock is held: what lies there is of runs that were killed.
        shutil.rmtree(self._project / LIVE_CURVES, ignore_errors=True)
        folder = self._project / LIVE_CURVES / self._run_id
        self._follower = CurveFollower(folder, self._send)
        return folder

    def _recorder_of(self, names: list[str], pipeline: Pipeline, environment: str | None) -> RunRecorder:
        from kedro.framework.project import PACKAGE_NAME, pipelines

        package = importlib.import_module(str(PACKAGE_NAME))
        source = Path(str(package.__file__)).resolve().parents[1]
        return RunRecorder(
            self._project, self._loader, names, pipeline, environment, dict(pipelines), package.__name__, source
        )

    def _tags(self, run_params: Mapping[str, Any], names: list[str], recorder: RunRecorder) -> dict[str, str]:
        from vr_pipeline.lineage.provenance import dvc_state, package_versions

        run = {
            "kedro.run_id": run_params["run_id"],
            "kedro.pipelines": ",".join(names),
            "kedro.env": run_params.get("env") or "",
            _PLACE: f"{platform.node()}:{self._project}",
            "kedro.runtime_params": str(run_params.get("runtime_params") or {}),
        }
        hashes = {f"{INPUT}{name}": md5 for name, md5 in recorder.hashes("inputs").items()}
        seeds = {f"seed.{name}": value for name, value in recorder.content["seeds"].items()}
        lock = dvc_state(self._project, recorder.lock_file)
        machine = recorder.content["machine"]
        run |= experiment_tags()
        tags = {**run, **recorder.code.tags, **lock, **package_versions(), **machine, **seeds, **hashes}
        return {name: value[:_TAG_LENGTH] for name, value in tags.items()}

    def _close(self, status: str, catalog: CatalogProtocol) -> None:
        """Record what finished nodes wrote, also of a run that failed later on."""
        if self._client is None:
            return
        from mlflow.exceptions import MlflowException

        # The results themselves are safe in the catalog; losing their copy in the log must not fail the run.
        try:
            if self._follower is not None:
                self._follower.stop()
            self._log_times()
            saved = [name for record in self._nodes.records.values() for name in record.saved]
            for name in saved:
                self._log_dataset(name, catalog)
            self._log_lineage(saved, catalog, register_models=status == "FINISHED")
        except (MlflowException, OSError) as error:
            logger.warning("MLflow could not record everything: %s", first_line(error))
        try:
            self._client.set_terminated(self._run_id, status)
        except (MlflowException, OSError) as error:
            logger.warning("MLflow could not close run %s: %s", self._run_id, first_line(error))
        self._set_environment({})
        self._client, self._follower = None, None

    def _log_lineage(self, saved: list[str], catalog: CatalogProtocol, *, register_models: bool) -> None:
        """Hashes of what was written as tags, the record as a file, and models in the registry."""
        if self._client is None or self._recorder is None:
            return
        metrics = {
            name: dict(numbers(catalog.load(name), name))
            for name in saved
            if isinstance(mark := mark_of(catalog, name), Mapping) and mark.get("metrics")
        }
        record = self._recorder.finish(saved, metrics)
        inputs, outputs = self._recorder.hashes("inputs"), self._recorder.hashes("outputs")
        record["models"] = list(_models(catalog, saved, {**inputs, **outputs}))
        set_tags(self._client, self._run_id, {f"{OUTPUT}{name}": md5 for name, md5 in outputs.items()})
        with tempfile.TemporaryDirectory() as folder:
            self._recorder.write_record(Path(folder))
            self._client.log_artifacts(self._run_id, folder, RECORD_FOLDER)
        if register_models:
            register(self._client, self._run_id, record, inputs)

    def _log_times(self) -> None:
        seconds = {f"seconds.{record.name}": record.seconds for record in self._nodes.records.values()}
        self._log_metrics({**seconds, "peak_memory_gib": peak_memory() / 2**30})

    def _log_dataset(self, name: str, catalog: CatalogProtocol) -> None:
        marked = mark_of(catalog, name)
        if curve := curve_name(name):
            self._log_curves(curve, catalog.load(name).select_dtypes("number").to_dict("records"))
        elif name.startswith(VALIDATION_LOGS):
            rows = catalog.load(name).to_dict("records")
            self._log_curves(name.removeprefix(VALIDATION_LOGS), [checkpoint_row(row) for row in rows])
        if isinstance(marked, Mapping) and marked.get("metrics"):
            self._log_metrics(dict(numbers(catalog.load(name), name)))
        if marked and self._client is not None:
            place = stored_at(catalog, name)
            if place is not None and place.is_dir():
                self._client.log_artifacts(self._run_id, str(place), artifact_path=name)
            elif place is not None and place.is_file():
                self._client.log_artifact(self._run_id, str(place))

    def _log_curves(self, curve: str, rows: list[dict[str, Any]]) -> None:
        now = int(time() * 1000)
        metrics = [metric for row in rows for metric in curve_metrics(curve, row, now)]
        # What the follower has brought is there already.
        self._send(self._follower.missing(metrics) if self._follower is not None else metrics)

    def _log_metrics(self, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        self._send([Metric(metric_name(name), value, now, 0) for name, value in numbers.items()])

    def _send(self, metrics: list[Any]) -> None:
        if self._client is None:
            return
        for start in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + METRICS_A_CALL])

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
    """Mark runs of this project that were killed: the project's lock is held here, so none of them can be alive.

    Nor can those in copies of the project that DVC made for an experiment and has thrown away.
    """
    for run in client.search_runs([experiment], "attributes.status = 'RUNNING'"):
        other = run.data.tags.get(_PLACE, "")
        machine, _, folder = other.partition(":")
        thrown_away = machine == platform.node() and "/.dvc/tmp/" in folder and not Path(folder).exists()
        if other == place or thrown_away:
            client.set_terminated(run.info.run_id, "KILLED")


def _flat_parameters(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, Any]:
    """Every parameter that the run uses by dotted name, with defaults filled in."""
    inputs = sorted(name for name in pipeline.inputs() if name.startswith("params:"))
    return {
        name: value
        for source in inputs
        for name, value in flattened(catalog.load(source), source.removeprefix("params:"))
    }


def _log_parameters(client: MlflowClient, run_id: str, flat: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(metric_name(name), str(value)[:_VALUE_LENGTH]) for name, value in flat.items()]
    for start in range(0, len(entries), _PARAMETERS_A_CALL):
        client.log_batch(run_id, params=entries[start : start + _PARAMETERS_A_CALL])


def _models(catalog: CatalogProtocol, saved: list[str], hashes: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Entries of the record for the models that this run wrote or measured."""
    for name in hashes:
        mark = mark_of(catalog, name)
        if isinstance(mark, Mapping) and mark.get("model"):
            origins = {origin for origin, _ in score_sources(mark)} & set(saved)
            contents = {origin: catalog.load(origin) for origin in origins}
            entry = model_entry(name, mark, hashes, contents, saved=name in saved)
            if entry is not None:
                yield entry


def mark_of(catalog: CatalogProtocol, name: str) -> Any:
    """What a catalog entry's metadata say under ``mlflow``; None without any."""
    metadata = getattr(catalog.get(name), "metadata", None)
    return metadata.get("mlflow") if isinstance(metadata, Mapping) else None
