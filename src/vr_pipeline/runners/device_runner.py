"""A Kedro runner that sends every node to a backend by its tags."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Executor
from functools import cached_property
from itertools import chain, product
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
from vr_pipeline.project.machines import laid_over
from vr_pipeline.runners.backends import CONFIGURATION_FILE, check_routes, open_backends
from vr_pipeline.runners.config import RunnerConfiguration
from vr_pipeline.runners.process_backend import Processes, groups
from vr_pipeline.runtime.setting_names import setting_trouble

if TYPE_CHECKING:
    from pluggy import PluginManager

    from vr_pipeline.runners.config import Route

logger = logging.getLogger(__name__)

RESUME_FROM = "resume_from"
"""Attribute of the error that ended a run: names of the nodes from which to resume."""


class DeviceRunner(AbstractRunner):
    """Runs nodes on the backends of conf/<env>/runner.yml (:class:`~vr_pipeline.runners.config.RunnerConfiguration`).

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
        """Use the settings of the configuration file below those of the constructor.

        Raises:
            InputError: a key is unknown or a value is out of range.
        """
        self._file = dict(settings)
        self.__dict__.pop("configuration", None)
        _ = self.configuration

    @cached_property
    def configuration(self) -> RunnerConfiguration:
        """The file's settings with the overrides."""
        try:
            return RunnerConfiguration.model_validate(laid_over(self._file, self._overrides))
        except ValidationError as error:
            field, trouble = setting_trouble(error, RunnerConfiguration)
            raise InputError(
                f"{trouble} (got {error.errors()[0]['input']!r})",
                remedy="correct the runner's settings",
                file=CONFIGURATION_FILE,
                field=field,
            ) from error

    def route_of(self, node: Node) -> Route:
        """Return the route of a node: that of the first configured tag it has, else the default."""
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
            InputError: the configured routes are not possible on this machine or cluster; no node has run.
            RunInterrupted: the run was stopped; finished nodes and items are kept.
        """
        self._check_tags(pipeline)
        check_routes([(node, self.route_of(node)) for node in pipeline.nodes], self.configuration)
        try:
            return super().run(pipeline, catalog, hook_manager, run_id, only_missing_outputs)
        except KeyboardInterrupt as interrupt:
            # Kedro calls its hooks only for subclasses of Exception.
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
        """Run the nodes one by one on their backends, since the models of two nodes seldom fit on one device.

        Only neighbours with the route ``processes`` run at the same time.
        """
        load_counts = Counter(chain.from_iterable(node.inputs for node in pipeline.nodes))
        done: list[Node] = []
        # Not as a node hook, because nodes may run in other processes.
        plugins = (hook_manager.get_plugins() or ()) if hook_manager is not None else ()  # Kedro's stand-in has None
        keepers = [plugin for plugin in plugins if isinstance(plugin, OriginsHook)]
        routed = [(node, self.route_of(node)) for node in pipeline.nodes]
        with open_backends(routed, self.configuration) as backends:
            for group in groups(routed):
                nodes = [node for node, _ in group]
                for number, node in enumerate(nodes, start=len(done) + 1):
                    logger.info("Node %d of %d: %s", number, len(pipeline.nodes), node.name)
                tasks = [Task(node, catalog, self._is_async, hook_manager, run_id) for node in nodes]
                try:
                    for node, origins in product(nodes, keepers):
                        origins.check(node, catalog)
                    _, route = group[0]
                    backend = backends[route.backend]
                    if isinstance(backend, Processes) and len(tasks) > 1:
                        backend.run_together(tasks)
                    else:
                        backend.run(tasks[0], route)
                except (Exception, KeyboardInterrupt) as error:
                    # The command line shows the command that resumes here.
                    setattr(error, RESUME_FROM, self.resume_point(pipeline, done, catalog))
                    raise
                done += nodes
                for node, origins in product(nodes, keepers):
                    origins.record(node, catalog)
                for node in nodes:
                    self._release_datasets(node, catalog, load_counts, pipeline)

    @staticmethod
    def resume_point(pipeline: Pipeline, done: Iterable[Node], catalog: CatalogProtocol) -> list[str]:
        """Return the nodes from which a run has to start to finish everything; empty if nothing is finished yet."""
        finished = set(done)
        if not finished:
            return []
        return sorted(_find_nodes_to_resume_from(pipeline, set(pipeline.nodes) - finished, catalog))
