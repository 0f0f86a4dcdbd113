"""Check before nodes run that the results they combine belong together.

Partial runs (one pipeline, ``--tags``, ``--from-nodes``) read results of earlier runs. Without the check, one report
could combine new weights with old policies. See :mod:`vr_pipeline.lineage.origins`.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from vr_pipeline.errors import InputError
from vr_pipeline.hooks.commands import run_command
from vr_pipeline.hooks.requirements import model_folders
from vr_pipeline.hooks.trained_models import TRAINED
from vr_pipeline.lineage.figures import flattened
from vr_pipeline.lineage.origins import Mismatch, Origin, Origins
from vr_pipeline.project.places import stored_at
from vr_pipeline.vlm.config import NO_PART_OF_ANSWERS

logger = logging.getLogger(__name__)

RECORDS = Path("logs") / "origins.json"
"""File of the project that records the inputs of results."""

_WITHOUT_EFFECT = {
    *("path", "revision", "adapter", "trust_remote_code", "device", "offload", "threads", "reader_threads"),
    *("clips_per_item", "max_median_outside_mass", "shard_size", "checkpoint_folder", "keep_judge"),
    *("retrain", "kept_trainings", "keep_weights"),
    *("folder", "memory_mb"),
    *NO_PART_OF_ANSWERS,
}
"""Settings that do not change results; models are compared by content."""
_SHOWN_ONLY = ".report."
_CONTENT = "the content of "
_LISTED = 4


class OriginsHook:
    """Records the inputs of results, and rejects a run that would combine results that do not belong together."""

    def __init__(self) -> None:
        self._run_params: dict[str, Any] = {}
        self._origins: Origins | None = None
        self._in_memory: dict[str, Origin] = {}

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        project = Path(run_params["project_path"])
        self._run_params, self._in_memory = run_params, {}
        self._origins = origins = Origins(project / RECORDS, project)
        made = set(_places(pipeline.all_outputs(), catalog, origins).values())
        self._reject([found for node in pipeline.nodes for found in self._mismatches(node, catalog, origins, made)])

    def check(self, node: Node, catalog: CatalogProtocol) -> None:
        """Check that the inputs of a node belong together.

        Raises:
            InputError: they do not.
        """
        if self._origins is not None:
            self._reject(self._mismatches(node, catalog, self._origins, set()))

    def record(self, node: Node, catalog: CatalogProtocol) -> None:
        """Record the inputs of a node's outputs, including those behind inputs that exist in memory only."""
        origins = self._origins
        if origins is None:
            return
        read = {place: origins.digest(place) for place in _places(_joined(node), catalog, origins).values()}
        inputs = {place: digest for place, digest in read.items() if digest is not None}
        settings = _settings(node, catalog, origins)
        for name in self._in_memory.keys() & set(node.inputs):
            inputs = {**self._in_memory[name].inputs, **inputs}
            settings = {**self._in_memory[name].settings, **settings}
        places = _places(node.outputs, catalog, origins)
        for name in node.outputs:
            kept = settings
            if getattr(catalog.get(name), "takes_up_what_is_there", False):
                # Each item has its own identity; only settings of models concern all items.
                kept = {leaf: value for leaf, value in settings.items() if _is_of_model(leaf, settings)}
            origin = Origin(name, node.name, inputs, kept)
            if name in places:
                origins.add(places[name], origin)
            else:
                self._in_memory[name] = origin
        try:
            origins.save()
        except OSError as error:
            logger.warning("The inputs of results cannot be recorded: %s (%s)", RECORDS, error.strerror)

    def _mismatches(self, node: Node, catalog: CatalogProtocol, origins: Origins, remade: set[str]) -> list[Mismatch]:
        through_memory = [self._in_memory[name].inputs for name in node.inputs if name in self._in_memory]
        places = set(_places(_joined(node), catalog, origins).values()).union(*through_memory)
        return origins.mismatches(places, _settings(node, catalog, origins), remade)

    def _reject(self, mismatches: list[Mismatch]) -> None:
        if not mismatches:
            return
        reasons = list(dict.fromkeys(mismatch.reason for mismatch in mismatches))
        more = f"; and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
        nodes = sorted({mismatch.origin.node for mismatch in mismatches})
        raise InputError(
            f"results that this run combines do not belong together: {'; '.join(reasons[:_LISTED])}{more}",
            remedy=f"make them again with '{run_command(self._run_params, **_where(nodes))}', which keeps what has not "
            "changed, or restore their former inputs",
        )


def _joined(node: Node) -> list[str]:
    """Return the inputs that have to belong together.

    A model trained here need not: it may be used with other clips. Like every model that parameters name, it is
    compared by content.
    """
    return [name for name in node.inputs if name not in TRAINED.values()]


def _places(names: Iterable[str], catalog: CatalogProtocol, origins: Origins) -> dict[str, str]:
    stored = {name: stored_at(catalog, name) for name in names if not name.startswith("params:")}
    return {name: origins.place(path) for name, path in stored.items() if path is not None}


def _where(nodes: list[str]) -> dict[str, list[str]]:
    """Return the pipeline and its first nodes."""
    from kedro.framework.project import pipelines

    holders = [name for name, one in pipelines.items() if set(nodes) <= {node.name for node in one.nodes}]
    # Everything after them is outdated too, hence the largest pipeline; one that trains a judge only if no other fits.
    plain = [name for name in holders if not pipelines[name].all_outputs() & set(TRAINED.values())] or holders
    whole = max(plain, key=lambda name: (len(pipelines[name].nodes), name != "__default__"), default=None)
    return {"pipelines": [whole] if whole else [], "from_nodes": nodes}


def _settings(node: Node, catalog: CatalogProtocol, origins: Origins) -> dict[str, Any]:
    """Return settings that determine a node's results, by dotted name; for models the hash of their content."""
    found: dict[str, Any] = {}
    for name in node.inputs:
        if name.startswith("params:"):
            value, prefix = catalog.load(name), name.removeprefix("params:")
            for leaf, entry in flattened(value, prefix):
                if leaf.rpartition(".")[2] not in _WITHOUT_EFFECT and _SHOWN_ONLY not in leaf:
                    # As JSON would return it.
                    plain = dict(entry) if isinstance(entry, Mapping) else entry
                    found[leaf] = json.loads(json.dumps(plain, default=str))
            for field, folder in model_folders(value, prefix):
                if (digest := origins.digests.of(Path(folder).expanduser().absolute())) is not None:
                    found[f"{_CONTENT}{field}"] = digest
    return found


def _is_of_model(leaf: str, settings: Mapping[str, Any]) -> bool:
    models = [name.removeprefix(_CONTENT).rpartition(".")[0] for name in settings if name.startswith(_CONTENT)]
    return leaf.startswith((_CONTENT, *(f"{model}." for model in models)))
