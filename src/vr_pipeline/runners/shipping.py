"""Nodes with their datasets, packed for execution in another process."""

import os
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kedro.io import DataCatalog
from kedro.pipeline.node import Node
from kedro.runner.task import Task

from vr_pipeline.datasets.catalog import ReplacingCatalog
from vr_pipeline.errors import PipelineError
from vr_pipeline.hooks.live_curves import CurveHook
from vr_pipeline.hooks.records import NodeRecord, NodeRecordHook
from vr_pipeline.project.explain import explain
from vr_pipeline.runtime.environment import prepare_environment
from vr_pipeline.runtime.live_curves import FOLDER
from vr_pipeline.video.limits import VARIABLE as READING

_PASSED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "KEDRO_DATASET_VALIDATION", FOLDER, READING)


class RemoteNodeError(RuntimeError):
    """A node failed in another process; the text has its traceback."""


@dataclass(frozen=True)
class Shipment:
    """A node, its datasets with their validators, and its environment."""

    node: Node
    catalog: DataCatalog
    run_id: str | None
    folder: str
    environment: dict[str, str] = field(default_factory=dict)
    logging: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The result of a shipment.

    Args:
        record: times and sizes.
        outputs: outputs that exist only in memory; the others were saved by the node's process.
        account: for a failed node, the error as a message, if users can fix it.
        trace: for a failed node, the traceback.
    """

    record: NodeRecord | None = None
    outputs: dict[str, Any] = field(default_factory=dict)
    account: str | None = None
    trace: str | None = None


def pack(task: Task) -> Shipment:
    """Return the shipment of a task, with the part of the catalog that its node uses."""
    from kedro.framework.project import LOGGING

    names = {*task.node.inputs, *task.node.outputs}
    catalog: Any = task.catalog
    part = ReplacingCatalog(datasets={name: catalog.get(name) for name in sorted(names)})
    part.validation_enabled = catalog.validation_enabled
    part._validator_specs = {name: spec for name, spec in catalog.validator_specs.items() if name in names}
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return Shipment(task.node, part, task.run_id, str(Path.cwd()), environment, _screen_only(LOGGING.data))


def _screen_only(logging: dict[str, Any]) -> dict[str, Any]:
    """Return logging settings without files, which belong to the driving process; other machines may lack them."""
    handlers = {name: entry for name, entry in logging.get("handlers", {}).items() if "filename" not in entry}

    def kept(entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "handlers": [name for name in entry.get("handlers", []) if name in handlers]}

    loggers = {name: kept(entry) for name, entry in logging.get("loggers", {}).items()}
    return {**logging, "handlers": handlers, "loggers": loggers, "root": kept(logging.get("root", {}))}


def execute(shipment: Shipment, *, saves: bool = True) -> Outcome:
    """Run a shipment. Errors are part of the outcome, since exceptions lose their causes between processes.

    Args:
        saves: whether this process saves the outputs; one process of a training group does.
    """
    prepare_environment()
    os.environ.update(shipment.environment)
    os.chdir(shipment.folder)
    from kedro.framework.project import configure_logging

    configure_logging(shipment.logging)
    try:
        return _execute(shipment, saves=saves)
    except Exception as error:  # noqa: BLE001 - part of the outcome and raised again by unpack()
        return Outcome(account=explain(error), trace="".join(traceback.format_exception(error)))


def _execute(shipment: Shipment, *, saves: bool) -> Outcome:
    from kedro.framework.hooks.manager import _create_hook_manager
    from kedro.runner.task import Task

    node, catalog = shipment.node, shipment.catalog
    if not saves:
        node.run({name: catalog.load(name) for name in node.inputs})
        return Outcome()
    recorder = NodeRecordHook()
    manager = _create_hook_manager()
    manager.register(recorder)
    manager.register(CurveHook())
    Task(node, catalog, is_async=False, hook_manager=manager, run_id=shipment.run_id).execute()
    in_memory = [name for name in node.outputs if catalog[name]._EPHEMERAL]
    return Outcome(recorder.records[node.name], {name: catalog.load(name) for name in in_memory})


def unpack(outcome: Outcome, task: Task) -> None:
    """Save an outcome: outputs in the catalog, the record in its hook.

    Raises:
        PipelineError: the node failed for a reason that the user can fix.
        RemoteNodeError: the node failed for another reason.
    """
    if outcome.trace is not None:
        cause = RemoteNodeError(f"node '{task.node.name}' failed in its worker:\n{outcome.trace}")
        if outcome.account is not None:
            raise PipelineError(outcome.account) from cause
        raise cause
    for name, data in outcome.outputs.items():
        task.catalog.save(name, data)
    plugins = task.hook_manager.get_plugins() if task.hook_manager is not None else None
    for plugin in plugins or ():  # Kedro's stand-in has None
        if isinstance(plugin, NodeRecordHook) and outcome.record is not None:
            plugin.add(outcome.record)
