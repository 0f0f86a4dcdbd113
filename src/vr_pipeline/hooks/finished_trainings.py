"""What trainings leave for the case of a kill is removed when a run has ended well."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

if TYPE_CHECKING:
    from kedro.io import CatalogProtocol
    from kedro.pipeline import Pipeline

logger = logging.getLogger(__name__)

_FIELDS = ("checkpoints", "checkpoint_folder")
"""Settings of training nodes that name the folder of their states."""


class FinishedTrainingHook:
    """Removes the results of finished trainings from the folders of checkpoints.

    Not sooner, since a run that is started again after a kill runs its nodes again, and DVC deletes what a killed stage
    had saved: the trainings before the one that was killed would begin anew.
    """

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        folders = set(state_folders(pipeline, catalog))
        if folders:
            from vr_pipeline.training.checkpoints import remove_finished

            try:
                for folder in folders:
                    remove_finished(folder)
            except OSError as error:
                logger.warning("The states of finished trainings cannot be removed (%s)", error)


def state_folders(pipeline: Pipeline, catalog: CatalogProtocol) -> Iterator[Path]:
    """Where trainings keep their states whose results a pipeline makes or uses.

    Uses, since a run that goes on after its trainings has to remove what they left.
    """
    from kedro.framework.project import pipelines

    touched = pipeline.datasets()
    training = {
        node
        for other in (pipeline, *pipelines.values())
        for node in other.nodes
        if "train" in node.tags and touched & {*node.outputs}
    }
    for name in sorted({name for node in training for name in node.inputs if name.startswith("params:")}):
        settings = catalog.load(name)
        for field in _FIELDS:
            if isinstance(folder := _value(settings, field), str):
                yield Path(folder)


def _value(settings: Any, field: str) -> Any:
    """A setting, of a block that was validated or of a plain one: only those that a run needs are validated."""
    return settings.get(field) if isinstance(settings, Mapping) else getattr(settings, field, None)
