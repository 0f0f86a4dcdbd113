"""One MLflow run a ``kedro run``, written by the driving process whatever runs the nodes."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from vr_pipeline.engine.state import WEIGHTS
from vr_pipeline.hooks.live_curves import curve_name
from vr_pipeline.hooks.records import NodeRecordHook
from vr_pipeline.hooks.run_log import RunLog
from vr_pipeline.lineage.delivery import RunDelivery
from vr_pipeline.lineage.figures import flattened, numbers
from vr_pipeline.lineage.gateway import Target, first_line
from vr_pipeline.lineage.models import model_entry, register, score_sources
from vr_pipeline.lineage.provenance import package_versions
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
from vr_pipeline.lineage.trust import fingerprint, remember
from vr_pipeline.project.configuration import section
from vr_pipeline.project.places import stored_at
from vr_pipeline.runtime.live_curves import FOLDER, checkpoint_row
from vr_pipeline.runtime.memory import peak_memory

logger = logging.getLogger(__name__)

VALIDATION_LOGS = "validation_log_"
_PLACE = "place"
_TAG_LENGTH = 5000


class MlflowHook:
    """Records parameters, metrics, curves, marked files, and what the results came from.

    Catalog entries choose: ``metadata: {mlflow: true}`` stores the file or folder as an artifact,
    ``metadata: {mlflow: {metrics: true}}`` turns the numbers of a JSON dataset into metrics (and stores the file),
    ``metadata: {mlflow: {model: NAME, ...}}`` registers a model (:mod:`vr_pipeline.lineage.models`).
    Tables named ``training_log_*`` or ``*_training_log`` become curves over their column ``step``: while the node runs
    if it writes its rows (:mod:`vr_pipeline.runtime.live_curves`), else at the end. Those named ``validation_log_*``
    add the rewards of judged checkpoints, of which step 0 is the original, and their weights that were kept in the
    folder that ``metadata: {mlflow: {weights: FOLDER}}`` names, as ``checkpoints/RECIPE/step-NUMBER``.
    """

    def __init__(self, nodes: NodeRecordHook) -> None:
        self._nodes = nodes
        self._configuration = MlflowConfiguration(enabled=False)
        self._project = Path()
        self._loader: Any = None
        self._connection: Connection | None = None
        self._recorder: RunRecorder | None = None
        self._environment: dict[str, str | None] = {}
        self._status = ""
        self._locked = False
        self.log: RunLog | None = None
        """What is being recorded; None outside of a run, or where nothing is."""
        self.troubles: list[str] = []
        """In sentences, what the record of the run lacks, and where it is if not in its store."""

    @property
    def code(self) -> Code | None:
        """The code of the run, if it is being recorded."""
        return self._recorder.code if self._recorder is not None else None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._project, self._loader = Path(context.project_path), context.config_loader
        self._configuration = read_configuration(section(self._loader, "mlflow", missing={"enabled": False}))

    def connect(self) -> None:
        """Open the store, before the project's lock is taken: whoever waits for a server keeps no other run waiting.

        Raises:
            InputError: it cannot be used, and a run may not start without.
        """
        self.log, self._recorder, self._connection, self.troubles = None, None, None, []
        if not self._configuration.enabled:
            return
        # Before anything is hashed: a server that is not there is known in seconds.
        self._connection = connect(self._configuration, self._project)
        if self._connection.moved:
            logger.warning(
                "The project was moved or copied: its records now name its own folder %s, no longer %s",
                self._configuration.artifacts,
                self._connection.moved,
            )
        if self._connection.offline:
            self._add_trouble(self._is_offline(self._connection.reason))

    def _is_offline(self, reason: str) -> str:
        where = self._configuration.offline_uri.removeprefix("sqlite:///")
        return (
            f"The tracking store cannot be used ({reason}): this run is recorded in {where} until "
            "'kedro lineage upload' sends it."
        )

    def _add_trouble(self, trouble: str) -> None:
        self.troubles.append(trouble)
        logger.warning("%s", trouble)

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        from kedro.framework.project import PACKAGE_NAME, pipelines

        connection, self._locked, self._status = self._connection, True, ""
        if connection is None:
            return
        names = list(run_params.get("pipeline_names") or ["__default__"])
        try:
            flat = _flat_parameters(pipeline, catalog)
            environment, registered = run_params.get("env"), dict(pipelines)
            recorder = RunRecorder(
                self._project, self._loader, names, pipeline, environment, registered, str(PACKAGE_NAME)
            )
            recorder.start(flat)
            remember(self._project, fingerprint(recorder.content))
        except Exception as error:
            logger.debug("No record can be made", exc_info=error)
            self._add_trouble(f"This run is not recorded: its record cannot be made ({first_line(error)}).")
            return
        for trouble in recorder.troubles:
            self._add_trouble(trouble)
        tags = self._tags(run_params, names, recorder)
        delivery = self._create(connection, tags, f"{','.join(names)} {run_params['run_id']}")
        if delivery is None:
            return
        log = self.log = RunLog(delivery, self._project)
        self._recorder = recorder
        inputs, place = recorder.hashes("inputs"), tags[_PLACE]
        log.gateway.put(
            "the end of runs that were killed", lambda to: _close_dead_runs(to, place) if self._locked else None
        )
        log.parameters(flat)
        log.gateway.put(
            "the runs that made the inputs", lambda to: link_sources(to.client, to.experiment, to.run_id, inputs)
        )
        self._put_record("the record", first=True)
        # Workers and nodes that call MLflow themselves write into this run and start none of their own.
        variables = {"MLFLOW_TRACKING_URI": delivery.uri, "MLFLOW_RUN_ID": delivery.run_id}
        if any(curve_name(name) for node in pipeline.nodes for name in node.outputs):
            with log.gateway.preparing("curves during the training"):
                variables[FOLDER] = str(log.follow_curves())
        self._set_environment(variables)

    @hook_impl
    def after_pipeline_run(self, catalog: CatalogProtocol) -> None:
        self._collect("FINISHED", catalog)

    @hook_impl
    def on_pipeline_error(self, error: Exception, catalog: CatalogProtocol) -> None:
        if self.log is not None:
            from vr_pipeline.errors import RunInterrupted

            text = redacted(f"{type(error).__name__}: {error}")[:_TAG_LENGTH]
            self.log.gateway.put("the error", lambda to: to.client.set_tag(to.run_id, "error", text))
            self._collect("KILLED" if isinstance(error, RunInterrupted) else "FAILED", catalog)

    def finish(self) -> None:
        """Deliver what is left, to the offline store if need be; the project's lock is free by now."""
        self._locked = False
        log, self.log = self.log, None
        self._set_environment({})
        if log is not None:
            self.troubles += log.delivery.finish(self._status or "FAILED", self._configuration, self._project)
            log.remove_files()

    def _create(self, connection: Connection, tags: Mapping[str, str], name: str) -> RunDelivery | None:
        """Return the run in its store, in the offline store where that fails; None, with a warning, where both do."""
        patience = self._configuration.patience
        try:
            return RunDelivery(connection, tags, name, patience)
        except Exception as error:
            reason = first_line(error)
            if self._configuration.when_unreachable == "fail":
                raise StoreTrouble(connection.uri, reason) from error
        try:
            if connection.offline:
                raise StoreTrouble(connection.uri, reason)
            offline = connect(self._configuration, self._project, offline=True)
            delivery = RunDelivery(offline, tags, name, patience)
        except Exception as error:  # noqa: BLE001 - whatever a store raises
            self._add_trouble(f"This run is not recorded: {reason}; nor offline: {first_line(error)}.")
            return None
        self._add_trouble(self._is_offline(reason))
        return delivery

    def _tags(self, run_params: Mapping[str, Any], names: list[str], recorder: RunRecorder) -> dict[str, str]:
        content = recorder.content
        tags = {
            "kedro.run_id": run_params["run_id"],
            "kedro.pipelines": ",".join(names),
            "kedro.env": run_params.get("env") or "",
            _PLACE: f"{platform.node()}:{self._project}",
            "kedro.runtime_params": str(without_secrets(run_params.get("runtime_params") or {})),
            **experiment_tags(),
            **recorder.code.tags,
            **{name: value for name, value in content["dvc_lock"].items() if name != "path"},
            **package_versions(content["packages"]),
            **content["machine"],
            **{f"seed.{name}": value for name, value in content["seeds"].items()},
            **{f"{INPUT}{name}": md5 for name, md5 in recorder.hashes("inputs").items()},
        }
        return {name: redacted(value)[:_TAG_LENGTH] for name, value in tags.items()}

    def _collect(self, status: str, catalog: CatalogProtocol) -> None:
        """Put together what finished nodes wrote, also of a run that failed later, while no other run writes."""
        log = self.log
        if log is None:
            return
        self._status = status
        with log.gateway.preparing("the last curves"):
            log.stop_following()
        records = self._nodes.records.values()
        with log.gateway.preparing("times of nodes"):
            seconds = {f"seconds.{record.name}": record.seconds for record in records}
            log.numbers({**seconds, "peak_memory_gib": peak_memory() / 2**30})
        saved = [name for record in records for name in record.saved]
        metrics: dict[str, dict[str, float]] = {}
        for name in saved:
            with log.gateway.preparing(name):
                if (found := _put_dataset(log, name, catalog)) is not None:
                    metrics[name] = found
        with log.gateway.preparing("hashes and models"):
            self._put_lineage(saved, metrics, catalog, register_models=status == "FINISHED")

    def _put_lineage(
        self,
        saved: list[str],
        metrics: Mapping[str, Mapping[str, float]],
        catalog: CatalogProtocol,
        *,
        register_models: bool,
    ) -> None:
        """Hashes of what was written as tags, the record as a file, and models in the registry."""
        assert self.log is not None
        assert self._recorder is not None
        gateway, recorder = self.log.gateway, self._recorder
        content = recorder.finish(saved, metrics)
        inputs, outputs = recorder.hashes("inputs"), recorder.hashes("outputs")
        content["models"] = list(_models(catalog, saved, {**inputs, **outputs}))
        tags = {f"{OUTPUT}{name}": md5 for name, md5 in outputs.items()}
        gateway.put("hashes of results", lambda to: set_tags(to.client, to.run_id, tags))
        self._put_record("the record")
        if register_models:
            gateway.put("models in the registry", lambda to: register(to.client, to.run_id, content, inputs))

    def _put_record(self, what: str, *, first: bool = False) -> None:
        assert self.log is not None
        assert self._recorder is not None
        with self.log.gateway.preparing(what):
            folder = self.log.new_folder(RECORD_FOLDER)
            if first:
                self._recorder.write_files(folder)
            self._recorder.write_record(folder)
            self.log.files(what, folder, RECORD_FOLDER)

    def _set_environment(self, values: dict[str, str]) -> None:
        """Put back what an earlier call replaced, then set ``values``."""
        for name, before in self._environment.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before
        self._environment = {name: os.environ.get(name) for name in values}
        os.environ.update(values)


def _put_dataset(log: RunLog, name: str, catalog: CatalogProtocol) -> dict[str, float] | None:
    """Record curves, numbers and the file of a dataset; its numbers, if the catalog marks them as metrics."""
    mark, metrics = mark_of(catalog, name), None
    if curve := curve_name(name):
        log.curve(curve, catalog.load(name).select_dtypes("number").to_dict("records"))
    elif name.startswith(VALIDATION_LOGS):
        recipe, rows = name.removeprefix(VALIDATION_LOGS), catalog.load(name).to_dict("records")
        log.curve(recipe, [checkpoint_row(row) for row in rows])
        if mark and (kept := mark.get("weights")):
            _put_checkpoints(log, recipe, rows, Path(kept))
    if mark and mark.get("metrics"):
        metrics = dict(numbers(catalog.load(name), name))
        log.numbers(metrics)
    place = stored_at(catalog, name) if mark is not None else None
    if place is not None and place.exists():
        log.result(name, place)
    return metrics


def _put_checkpoints(log: RunLog, recipe: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """Record the weights of judged checkpoints that were kept."""
    for row in rows:
        for place in sorted(folder.glob(f"*{WEIGHTS}/{row['policy']}"))[:1]:
            log.result(f"checkpoints/{recipe}/step-{int(row['step']):06d}", place)


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


def _models(catalog: CatalogProtocol, saved: list[str], hashes: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Entries of the record for the models that this run wrote or measured."""
    for name in hashes:
        mark = mark_of(catalog, name)
        if mark and mark.get("model"):
            origins = {origin for origin, _ in score_sources(mark)} & set(saved)
            contents = {origin: catalog.load(origin) for origin in origins}
            entry = model_entry(name, mark, hashes, contents, saved=name in saved)
            if entry is not None:
                yield entry


def mark_of(catalog: CatalogProtocol, name: str) -> Mapping[str, Any] | None:
    """Return what a catalog entry's metadata say under ``mlflow``, empty for ``true``; None if it is not recorded."""
    metadata = getattr(catalog.get(name), "metadata", None)
    mark = metadata.get("mlflow") if isinstance(metadata, Mapping) else None
    return mark if isinstance(mark, Mapping) else {} if mark else None
