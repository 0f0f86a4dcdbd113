"""A Kedro runner that sends every node to a backend by its tags."""

from __future__ import annotations

import logging
from collections import Counter
from concurrent.futures import Executor
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node
from kedro.runner import AbstractRunner
from kedro.runner.runner import _find_nodes_to_resume_from
from kedro.runner.task import Task
from pydantic import ValidationError

from vr_pipeline.errors import InputError, RunInterrupted
from vr_pipeline.hooks.origins import OriginsHook
from vr_pipeline.runners.backends import CONFIGURATION_FILE, check_routes, open_backends
from vr_pipeline.runners.config import RunnerConfiguration
from vr_pipeline.runtime.setting_names import setting_trouble

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pluggy import PluginManager

    from vr_pipeline.runners.config import Route

logger = logging.getLogger(__name__)

RESUME_FROM = "resume_from"
"""Attribute of the error that ended a run: the names of the nodes at which another run can resume."""


class DeviceRunner(AbstractRunner):
    """Runs nodes where conf/<env>/runner.yml says (:class:`~vr_pipeline.runners.config.RunnerConfiguration`).

    Args:
        is_async: load and save datasets with threads; only for nodes that run in process.
        overrides: settings that take precedence over the file's, nested as there; from
            ``kedro run --runner-params=execution.workers=2,routes.gpu.backend=ray``.
    """

    def __init__(self, is_async: bool = False, **overrides: Any) -> None:
        super().__init__(is_async=is_async)
        self._file: dict[str, Any] = {}
        self._overrides = overrides

    def configure(self, settings: dict[str, Any]) -> None:
        """Take the settings of the configuration file; what the constructor was given stays on top.

        Raises:
            InputError: a key is unknown or a value is out of range.
        """
        self._file = dict(settings)
        self.__dict__.pop("configuration", None)
        _ = self.configuration

    @cached_property
    def configuration(self) -> RunnerConfiguration:
        """The file's settings with the overrides laid over them."""
        try:
            return RunnerConfiguration.model_validate(_merged(self._file, self._overrides))
        except ValidationError as error:
            field, trouble = setting_trouble(error, RunnerConfiguration)
            raise InputError(
                f"{trouble} (got {error.errors()[0]['input']!r})",
                remedy="correct the runner's settings",
                file=CONFIGURATION_FILE,
                field=field,
            ) from error

    def route_of(self, node: Node) -> Route:
        """Return the route of a node: that of the first configured tag it carries, else the default."""
        for tag, route in self.configuration.routes.items():
            if tag in node.tags:
                return route
        return self.configuration.default

    def run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
        only_missing_outputs: bool = False,
    ) -> dict[str, Any]:
        """Run a pipeline; see :meth:`kedro.runner.AbstractRunner.run`.

        Raises:
            InputError: the configured routes cannot be followed on this machine or cluster; nothing has run then.
            RunInterrupted: the run was stopped; finished nodes and items are kept.
        """
        self._check_tags(pipeline)
        check_routes([(node, self.route_of(node)) for node in pipeline.nodes], self.configuration)
        try:
            return super().run(pipeline, catalog, hook_manager, run_id, only_missing_outputs)
        except KeyboardInterrupt as interrupt:
            # Kedro calls its hooks for exceptions only, and a KeyboardInterrupt is none.
            raise RunInterrupted("The run was stopped. Finished nodes and items are kept.") from interrupt

    def _check_tags(self, pipeline: Pipeline) -> None:
        from kedro.framework.project import pipelines

        known = {"gpu", "train"}.union(*(node.tags for one in (pipeline, *pipelines.values()) for node in one.nodes))
        if unknown := [tag for tag in self.configuration.routes if tag not in known]:
            raise InputError(
                f"no node has the tag '{unknown[0]}'",
                remedy=f"use one of {', '.join(sorted(known))}",
                file=CONFIGURATION_FILE,
                field=f"routes.{unknown[0]}",
            )

    def _get_executor(self, max_workers: int) -> Executor | None:
        return None

    def _run(
        self,
        pipeline: Pipeline,
        catalog: CatalogProtocol,
        hook_manager: PluginManager | None = None,
        run_id: str | None = None,
    ) -> None:
        """One node after the other, each on its backend: the models of two nodes seldom fit on one device."""
        load_counts = Counter(chain.from_iterable(node.inputs for node in pipeline.nodes))
        done: list[Node] = []
        # Here and not as a hook of nodes: nodes may run in other processes.
        plugins = (hook_manager.get_plugins() or ()) if hook_manager is not None else ()  # Kedro's stand-in has None
        keepers = [plugin for plugin in plugins if isinstance(plugin, OriginsHook)]
        nodes = [(node, self.route_of(node)) for node in pipeline.nodes]
        with open_backends(nodes, self.configuration) as backends:
            for node, route in nodes:
                logger.info("Node %d of %d: %s", len(done) + 1, len(pipeline.nodes), node.name)
                task = Task(node, catalog, self._is_async, hook_manager, run_id)
                try:
                    for origins in keepers:
                        origins.check(node, catalog)
                    backends[route.backend].run(task, route)
                except (Exception, KeyboardInterrupt) as error:
                    # The command line turns the names into the one command that resumes here.
                    setattr(error, RESUME_FROM, self.resume_point(pipeline, done, catalog))
                    raise
                done.append(node)
                for origins in keepers:
                    origins.record(node, catalog)
                self._release_datasets(node, catalog, load_counts, pipeline)

    @staticmethod
    def resume_point(pipeline: Pipeline, done: Iterable[Node], catalog: CatalogProtocol) -> list[str]:
        """Names of the nodes to start at so that everything unfinished runs; empty if nothing is finished yet."""
        finished = set(done)
        if not finished:
            return []
        return sorted(_find_nodes_to_resume_from(pipeline, set(pipeline.nodes) - finished, catalog))


def _merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """``top`` laid over ``base``, block by block; a route that changes its backend replaces the route below it."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        if (
            isinstance(value, dict)
            and isinstance(below, dict)
            and value.get("backend", below.get("backend")) == below.get("backend")
        ):
            result[key] = _merged(below, value)
        else:
            result[key] = value
    return result
