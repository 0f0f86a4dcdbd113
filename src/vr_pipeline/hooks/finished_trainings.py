"""Of what trainings leave, the states and results used last are kept when a run has finished."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

logger = logging.getLogger(__name__)

_KEPT = 4
"""States that are kept where the settings, not validated, do not say."""


class FinishedTrainingHook:
    """Removes old states and results of trainings from the folders of checkpoints.

    The newest are kept, so that a training of the same identity is not done again: not by a second run, not after a
    kill in a later node, and not by DVC, which deletes what a stage had saved before the stage runs again.
    """

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        folders = dict(state_folders(pipeline, catalog))
        if folders:
            from vr_pipeline.engine.state import keep_newest

            try:
                for folder, count in folders.items():
                    keep_newest(folder, count)
            except OSError as error:
                logger.warning("Old states of trainings cannot be removed (%s)", error)


def state_folders(pipeline: Pipeline, catalog: CatalogProtocol) -> Iterator[tuple[Path, int]]:
    """Where trainings whose results a pipeline makes or uses keep states and checkpoints, and how many of them.

    Uses, since a run that resumes after its trainings has to remove what they left.
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
        # Blocks are validated or plain: only those that a run needs are validated.
        plain = settings if isinstance(settings, Mapping) else settings.model_dump()
        for block in (plain, *(value for value in plain.values() if isinstance(value, Mapping))):
            if isinstance(folder := block.get("checkpoint_folder"), str):
                count = block.get("kept_trainings")
                count = count if isinstance(count, int) else _KEPT
                yield Path(folder), count
                if isinstance(validation := block.get("validation"), Mapping):
                    yield Path(validation["folder"]) / "trainings", count
