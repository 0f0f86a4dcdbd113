"""One MLflow run a ``kedro run``, written by the driving process whatever runs the nodes."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from kedro.config import MissingConfigException
from kedro.framework.hooks import hook_impl

from vr_pipeline.hooks.live_curves import METRICS_A_CALL, CurveFollower, curve_metrics, curve_name, metric_name
from vr_pipeline.hooks.records import NodeRecordHook
from vr_pipeline.hooks.spool import Spool
from vr_pipeline.lineage.delivery import RunDelivery
from vr_pipeline.lineage.figures import flattened, numbers
from vr_pipeline.lineage.gateway import Gateway, Target, told
from vr_pipeline.lineage.models import model_entry, register, score_sources
from vr_pipeline.lineage.record import RECORD_FOLDER, RunRecorder
from vr_pipeline.lineage.repository import Code
from vr_pipeline.lineage.runs import INPUT, OUTPUT, link_sources, set_tags
from vr_pipeline.lineage.secrets import redacted, without_secrets
from vr_pipeline.lineage.tracking import (
    Connection,
    MlflowConfiguration,
    StoreTrouble,
    connect,
    experiment_tags,
    read_configuration,
)
from vr_pipeline.project.places import stored_at
from vr_pipeline.runtime.live_curves import FOLDER, checkpoint_row
from vr_pipeline.runtime.memory import peak_memory

if TYPE_CHECKING:
    from kedro.framework.context import KedroContext
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline

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
    if it tells its rows (:mod:`vr_pipeline.runtime.live_curves`), else at the end. Those named ``validation_log_*`` add
    the rewards of judged checkpoints, of which step 0 is the original.

    Args:
        nodes: the hook that recorded which nodes have finished.
    """

    def __init__(self, nodes: NodeRecordHook) -> None:
        self._nodes = nodes
        self._configuration = MlflowConfiguration(enabled=False)
        self._project = Path()
        self._loader: Any = None
        self._connection: Connection | None = None
        self._recorder: RunRecorder | None = None
        self._environment: dict[str, str | None] = {}
        self._follower: CurveFollower | None = None
        self._spool: Spool | None = None
        self._status = ""
        self._locked = False
        self.record: RunDelivery | None = None
        """What is being recorded; None outside of a run, or where nothing is."""
        self.troubles: list[str] = []
        """In sentences, what the record of the run lacks, and where it is if not in its store."""

    @property
    def code(self) -> Code | None:
        """The code of the run, if it is being recorded."""
        return self._recorder.code if self._recorder is not None else None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._project = Path(context.project_path)
        self._loader = context.config_loader
        try:
            settings = dict(context.config_loader["mlflow"])
        except MissingConfigException:
            settings = {"enabled": False}
        self._configuration = read_configuration(settings)

    def connect(self) -> None:
        """Open the store, before the project's lock is taken: whoever waits for a server keeps no other run waiting.

        Raises:
            InputError: it cannot be used, and a run may not go on without.
        """
        self.record, self._recorder, self._connection, self.troubles = None, None, None, []
        if not self._configuration.enabled:
            return
        # Before anything is hashed: a server that is not there is told in seconds.
        self._connection = connect(self._configuration, self._project)
        if self._connection.moved:
            logger.warning(
                "The project was moved or copied: its records now name its own folder %s, no longer %s",
                self._configuration.artifacts,
                self._connection.moved,
            )
        if self._connection.offline:
            self._tell_offline(self._connection.reason)

    def _tell_offline(self, reason: str) -> None:
        where = self._configuration.offline_uri.removeprefix("sqlite:///")
        self.troubles.append(
            f"The tracking store cannot be used ({reason}): this run is recorded in {where} until "
            "'kedro lineage upload' sends it."
        )
        logger.warning("%s", self.troubles[-1])

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        connection, self._locked, self._status = self._connection, True, ""
        if connection is None:
            return
        names = list(run_params.get("pipeline_names") or ["__default__"])
        try:
            flat = _flat_parameters(pipeline, catalog)
            recorder = self._recorder_of(names, pipeline, run_params.get("env"))
            recorder.start(flat)
        except Exception as error:
            logger.debug("No record can be made", exc_info=error)
            self._give_up(f"This run is not recorded: its record cannot be made ({told(error)}).")
            return
        for trouble in recorder.troubles:
            logger.warning("%s", trouble)
        self.troubles += recorder.troubles
        tags = self._tags(run_params, names, recorder)
        run_name = f"{','.join(names)} {run_params['run_id']}"
        record = self._create(connection, tags, run_name)
        if record is None:
            return
        self.record, self._recorder = record, recorder
        self._spool = Spool(self._project)
        inputs, place = recorder.hashes("inputs"), tags[_PLACE]
        gateway = record.gateway
        gateway.put(
            "the end of runs that were killed", lambda to: _close_dead_runs(to, place) if self._locked else None
        )
        _put_parameters(gateway, flat)
        gateway.put(
            "the runs that made the inputs", lambda to: link_sources(to.client, to.experiment, to.run_id, inputs)
        )
        self._put_record(recorder, "the record", first=True)
        # Workers and nodes that call MLflow themselves write into this run and start none of their own.
        environment = {"MLFLOW_TRACKING_URI": record.uri, "MLFLOW_RUN_ID": gateway.target.run_id}
        if any(curve_name(name) for node in pipeline.nodes for name in node.outputs):
            with gateway.preparing("curves during the training"):
                environment[FOLDER] = str(self._follow_curves(gateway.target.run_id))
        self._set_environment(environment)

    @hook_impl
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        self._collect("FINISHED", catalog)

    @hook_impl
    def on_pipeline_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        if self.record is not None:
            from vr_pipeline.errors import RunInterrupted

            said = redacted(f"{type(error).__name__}: {error}")[:_TAG_LENGTH]
            self.record.gateway.put("the error", lambda to: to.client.set_tag(to.run_id, "error", said))
            self._collect("KILLED" if isinstance(error, RunInterrupted) else "FAILED", catalog)

    def finish(self) -> None:
        """Deliver what is left, to the offline store if need be; the project's lock is free by now."""
        self._locked = False
        record, self.record, self._follower = self.record, None, None
        self._set_environment({})
        if record is not None:
            self.troubles += record.finish(self._status or "FAILED", self._configuration, self._project)
        if self._spool is not None:
            self._spool.remove()
            self._spool = None

    def _create(self, connection: Connection, tags: Mapping[str, str], run_name: str) -> RunDelivery | None:
        """The run in its store, in the offline store where that fails; None, told, where both do."""
        patience = self._configuration.patience
        try:
            return RunDelivery(connection, tags, run_name, patience)
        except Exception as error:
            reason = told(error)
            if self._configuration.when_unreachable == "fail":
                raise StoreTrouble(connection.uri, reason) from error
        try:
            if connection.offline:
                raise StoreTrouble(connection.uri, reason)
            offline = connect(self._configuration, self._project, offline=True)
            record = RunDelivery(offline, tags, run_name, patience)
        except Exception as error:  # noqa: BLE001 - whatever a store raises
            self._give_up(f"This run is not recorded: {reason}; nor offline: {told(error)}.")
            return None
        self._tell_offline(reason)
        return record

    def _give_up(self, trouble: str) -> None:
        self.troubles.append(trouble)
        logger.warning("%s", trouble)

    def _follow_curves(self, run_id: str) -> Path:
        """Start to bring rows of training logs to MLflow; the folder where they are told."""
        # The project's lock is held: what lies there is of runs that were killed.
        shutil.rmtree(self._project / LIVE_CURVES, ignore_errors=True)
        folder = self._project / LIVE_CURVES / run_id
        self._follower = CurveFollower(folder, self._put_metrics)
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
            "kedro.runtime_params": str(without_secrets(run_params.get("runtime_params") or {})),
        }
        hashes = {f"{INPUT}{name}": md5 for name, md5 in recorder.hashes("inputs").items()}
        seeds = {f"seed.{name}": value for name, value in recorder.content["seeds"].items()}
        lock = dvc_state(self._project, recorder.lock_file)
        machine = recorder.content["machine"]
        run |= experiment_tags()
        tags = {**run, **recorder.code.tags, **lock, **package_versions(), **machine, **seeds, **hashes}
        return {name: redacted(value)[:_TAG_LENGTH] for name, value in tags.items()}

    def _collect(self, status: str, catalog: CatalogProtocol) -> None:
        """Put together what finished nodes wrote, also of a run that failed later on, while no other run writes."""
        if self.record is None:
            return
        self._status = status
        gateway = self.record.gateway
        if self._follower is not None:
            with gateway.preparing("the last curves"):
                self._follower.stop()
        with gateway.preparing("times of nodes"):
            seconds = {f"seconds.{record.name}": record.seconds for record in self._nodes.records.values()}
            self._put_numbers({**seconds, "peak_memory_gib": peak_memory() / 2**30})
        saved = [name for record in self._nodes.records.values() for name in record.saved]
        for name in saved:
            with gateway.preparing(name):
                self._put_dataset(name, catalog)
        with gateway.preparing("hashes and models"):
            self._put_lineage(saved, catalog, register_models=status == "FINISHED")

    def _put_lineage(self, saved: list[str], catalog: CatalogProtocol, *, register_models: bool) -> None:
        """Hashes of what was written as tags, the record as a file, and models in the registry."""
        if self.record is None or self._recorder is None:
            return
        gateway, recorder = self.record.gateway, self._recorder
        metrics = {
            name: dict(numbers(catalog.load(name), name))
            for name in saved
            if isinstance(mark := mark_of(catalog, name), Mapping) and mark.get("metrics")
        }
        recorder.troubles = list(dict.fromkeys([*recorder.troubles, *self.troubles, *gateway.lost]))
        content = recorder.finish(saved, metrics)
        inputs, outputs = recorder.hashes("inputs"), recorder.hashes("outputs")
        content["models"] = list(_models(catalog, saved, {**inputs, **outputs}))
        tags = {f"{OUTPUT}{name}": md5 for name, md5 in outputs.items()}
        gateway.put("hashes of results", lambda to: set_tags(to.client, to.run_id, tags))
        self._put_record(recorder, "the record")
        if register_models:
            gateway.put("models in the registry", lambda to: register(to.client, to.run_id, content, inputs))

    def _put_record(self, recorder: RunRecorder, what: str, *, first: bool = False) -> None:
        if self.record is None or self._spool is None:
            return
        with self.record.gateway.preparing(what):
            folder = self._spool.folder(RECORD_FOLDER)
            if first:
                recorder.write_files(folder)
            recorder.write_record(folder)
            self._put_files(what, folder, RECORD_FOLDER)

    def _put_dataset(self, name: str, catalog: CatalogProtocol) -> None:
        marked = mark_of(catalog, name)
        if curve := curve_name(name):
            self._put_curves(curve, catalog.load(name).select_dtypes("number").to_dict("records"))
        elif name.startswith(VALIDATION_LOGS):
            rows = catalog.load(name).to_dict("records")
            self._put_curves(name.removeprefix(VALIDATION_LOGS), [checkpoint_row(row) for row in rows])
        if isinstance(marked, Mapping) and marked.get("metrics"):
            self._put_numbers(dict(numbers(catalog.load(name), name)))
        place = stored_at(catalog, name) if marked else None
        if place is not None and place.exists() and self._spool is not None:
            self._put_files(name, self._spool.take(place), name if place.is_dir() else None)

    def put_text(self, text: str, name: str) -> None:
        """Record a text as a file of the run."""
        if self.record is not None:
            self.record.gateway.put(name, lambda to: to.client.log_text(to.run_id, text, name), len(text))

    def _put_files(self, what: str, place: Path, folder: str | None) -> None:
        if self.record is None:
            return
        if place.is_dir():
            size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
            self.record.gateway.put(what, lambda to: to.client.log_artifacts(to.run_id, str(place), folder), size)
        else:
            size = place.stat().st_size
            self.record.gateway.put(what, lambda to: to.client.log_artifact(to.run_id, str(place)), size)

    def _put_curves(self, curve: str, rows: list[dict[str, Any]]) -> None:
        now = int(time() * 1000)
        metrics = [metric for row in rows for metric in curve_metrics(curve, row, now)]
        # What the follower has brought is there already.
        self._put_metrics(self._follower.missing(metrics) if self._follower is not None else metrics)

    def _put_numbers(self, numbers: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time() * 1000)
        self._put_metrics([Metric(metric_name(name), value, now, 0) for name, value in numbers.items()])

    def _put_metrics(self, metrics: list[Any]) -> None:
        if self.record is None:
            return
        for start in range(0, len(metrics), METRICS_A_CALL):
            part = metrics[start : start + METRICS_A_CALL]
            self.record.gateway.put("metrics", partial(_log_batch, metrics=part))

    def _set_environment(self, values: dict[str, str]) -> None:
        """Put back what an earlier call replaced, then set ``values``."""
        for name, before in self._environment.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
        self._environment = {name: os.environ.get(name) for name in values}
        os.environ.update(values)


def _log_batch(to: Target, **what: Any) -> None:
    to.client.log_batch(to.run_id, **what)


def _close_dead_runs(to: Target, place: str) -> None:
    """Mark runs of this project that were killed: the project's lock is held here, so none of them can be alive.

    Nor can those in copies of the project that DVC made for an experiment and has thrown away.
    """
    for run in to.client.search_runs([to.experiment], "attributes.status = 'RUNNING'"):
        other = run.data.tags.get(_PLACE, "")
        machine, _, folder = other.partition(":")
        thrown_away = machine == platform.node() and "/.dvc/tmp/" in folder and not Path(folder).exists()
        if run.info.run_id != to.run_id and (other == place or thrown_away):
            to.client.set_terminated(run.info.run_id, "KILLED")


def _flat_parameters(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, Any]:
    """Every parameter that the run uses by dotted name, with defaults filled in."""
    inputs = sorted(name for name in pipeline.inputs() if name.startswith("params:"))
    return {
        name: value
        for source in inputs
        for name, value in flattened(catalog.load(source), source.removeprefix("params:"))
    }


def _put_parameters(gateway: Gateway, flat: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    # By their own names, since a secret is known by that of its setting.
    plain = {name: without_secrets(value, name) for name, value in flat.items()}
    entries = [Param(metric_name(name), str(value)[:_VALUE_LENGTH]) for name, value in plain.items()]
    for start in range(0, len(entries), _PARAMETERS_A_CALL):
        part = entries[start : start + _PARAMETERS_A_CALL]
        gateway.put("parameters", partial(_log_batch, params=part))


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
