"""One MLflow run per ``kedro run``, written by the driving process whatever runs the nodes."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from vr_pipeline.hooks.live_curves import curve_name
from vr_pipeline.hooks.recipe_runs import put_recipe_runs
from vr_pipeline.hooks.recorded_datasets import METRICS, mark_of, put_dataset
from vr_pipeline.hooks.records import NodeRecordHook
from vr_pipeline.hooks.run_log import RunLog
from vr_pipeline.lineage.delivery import RunDelivery
from vr_pipeline.lineage.figures import flattened
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
from vr_pipeline.runtime.environment import environment_variables
from vr_pipeline.runtime.live_curves import FOLDER
from vr_pipeline.runtime.memory import peak_memory

logger = logging.getLogger(__name__)

_PLACE, _DEFAULT = "place", "__default__"
_MOST_STAGES = 3
_TAG_LENGTH = 5000


class MlflowHook:
    """Records parameters, metrics, curves, marked files, and the origin of the results.

    Catalog entries select what is recorded: ``metadata: {mlflow: true}`` stores the file or folder as an artifact,
    ``metadata: {mlflow: {metrics: true}}`` records the numbers of a JSON dataset as metrics (and stores the file),
    ``metadata: {mlflow: {clips: INDEX}}`` stores some clips of a folder as videos, by the video index of that name,
    ``metadata: {mlflow: {model: NAME, ...}}`` registers a model (:mod:`vr_pipeline.lineage.models`).
    PNG files are also logged as MLflow images, and every recipe has a nested run with its curves and figures.
    Tables named ``training_log_*`` or ``*_training_log`` become curves over their column ``step``, live if the node
    writes its rows (:mod:`vr_pipeline.runtime.live_curves`). Tables named ``validation_log_*`` add the rewards of
    judged checkpoints (step 0 is the original), and the weights kept in the folder named by
    ``metadata: {mlflow: {weights: FOLDER}}``, as ``checkpoints/RECIPE/step-NUMBER``.
    """

    def __init__(self, nodes: NodeRecordHook) -> None:
        self._nodes = nodes
        self._configuration = MlflowConfiguration(enabled=False)
        self._project = Path()
        self._loader: Any = None
        self._connection: Connection | None = None
        self._recorder: RunRecorder | None = None
        self._environment = ExitStack()
        self._status = ""
        self._locked = False
        self.log: RunLog | None = None
        """The record in progress; None outside of a run, or if nothing is recorded."""
        self.troubles: list[str] = []
        """Sentences: what is missing in the run's record, and where it is if not in its store."""
        self.page = ""
        """Where to see the experiment's runs; empty if they are not in their store."""

    @property
    def code(self) -> Code | None:
        """Code of the run, if it is recorded."""
        return self._recorder.code if self._recorder is not None else None

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        self._project, self._loader = Path(context.project_path), context.config_loader
        self._configuration = read_configuration(section(self._loader, "mlflow", missing={"enabled": False}))

    def connect(self) -> None:
        """Open the store before the project is locked, so that waiting for a server blocks no other run.

        Raises:
            InputError: the store cannot be used, and the configuration requires it.
        """
        self.log, self._recorder, self._connection, self.troubles, self.page = None, None, None, [], ""
        if not self._configuration.enabled:
            return
        # Before anything is hashed, so that a missing server is reported in seconds.
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
        delivery = self._create(connection, tags, f"{what_ran(names, pipeline, registered)} {run_params['run_id']}")
        if delivery is None:
            return
        if not connection.offline and delivery.uri == connection.uri:
            self.page = runs_page(self._configuration, connection.experiment)
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
        """Deliver the rest, if necessary to the offline store; the project is no longer locked."""
        self._locked = False
        log, self.log = self.log, None
        self._set_environment({})
        if log is not None:
            self.troubles += log.delivery.finish(self._status or "FAILED", self._configuration, self._project)
            log.remove_files()

    def _create(self, connection: Connection, tags: Mapping[str, str], name: str) -> RunDelivery | None:
        """Create the run in its store, else in the offline store; None, with a warning, if both fail."""
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
            "kedro.machine": content["machine_profile"] or "",
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
        """Collect the outputs of finished nodes, also of a run that failed later, while the project is locked."""
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
                if (found := put_dataset(log, name, catalog)) is not None:
                    metrics[name] = found
        with log.gateway.preparing("the runs of the recipes"):
            tags = {_PLACE: f"{platform.node()}:{self._project}"}
            put_recipe_runs(log, metrics.get(METRICS, {}), tags, status)
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
        """Record hashes of outputs as tags, the record as a file, and models in the registry."""
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
        """Restore variables that an earlier call replaced, then set ``values``."""
        self._environment.close()
        self._environment.enter_context(environment_variables(values))


def runs_page(configuration: MlflowConfiguration, experiment: str) -> str:
    """Return the address of an experiment's runs in MLflow's pages, and the command that serves them if none does.

    Without ``workflowType``, MLflow opens an experiment on traces of language models.
    """
    path = f"#/experiments/{experiment}/runs?workflowType=machine_learning"
    if configuration.is_server:
        return f"{configuration.tracking_uri.rstrip('/')}/{path}"
    return f"http://127.0.0.1:5000/{path} (after 'mlflow ui --backend-store-uri {configuration.tracking_uri}')"


def what_ran(names: Sequence[str], pipeline: Pipeline, registered: Mapping[str, Pipeline]) -> str:
    """Return a run's name: its pipelines if they run completely, else its stages, else its only node.

    Args:
        names: requested pipelines.
        pipeline: the nodes that run.
        registered: all pipelines by name.
    """
    nodes = {node.name for node in pipeline.nodes}
    whole = {node.name for name in names if name in registered for node in registered[name].nodes}
    if nodes == whole:
        same = (
            name for name, other in registered.items() if name != _DEFAULT and {n.name for n in other.nodes} == nodes
        )
        return ",".join(names) if _DEFAULT not in names else next(same, _DEFAULT)
    if len(nodes) == 1:
        return next(iter(nodes))
    stages = list(dict.fromkeys(node.namespace or node.name for node in pipeline.nodes))
    return ", ".join(stages) if len(stages) <= _MOST_STAGES else f"{stages[0]} to {stages[-1]}"


def _close_dead_runs(to: Target, place: str) -> None:
    """Mark runs of this project that were killed: the project is locked, so none of them can be active.

    Neither can runs in deleted copies of the project, which DVC made for experiments.
    """
    for run in to.client.search_runs([to.experiment], "attributes.status = 'RUNNING'"):
        other = run.data.tags.get(_PLACE, "")
        machine, _, folder = other.partition(":")
        thrown_away = machine == platform.node() and "/.dvc/tmp/" in folder and not Path(folder).exists()
        if run.info.run_id != to.run_id and (other == place or thrown_away):
            to.client.set_terminated(run.info.run_id, "KILLED")


def _flat_parameters(pipeline: Pipeline, catalog: CatalogProtocol) -> dict[str, Any]:
    """Return every parameter that the run uses by dotted name, including defaults."""
    inputs = sorted(name for name in pipeline.inputs() if name.startswith("params:"))
    return {
        name: value
        for source in inputs
        for name, value in flattened(catalog.load(source), source.removeprefix("params:"))
    }


def _models(catalog: CatalogProtocol, saved: list[str], hashes: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield entries of the record for models that this run wrote or measured."""
    for name in hashes:
        mark = mark_of(catalog, name)
        if mark and mark.get("model"):
            origins = {origin for origin, _ in score_sources(mark)} & set(saved)
            contents = {origin: catalog.load(origin) for origin in origins}
            entry = model_entry(name, mark, hashes, contents, saved=name in saved)
            if entry is not None:
                yield entry
