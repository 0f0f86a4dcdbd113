"""Remove old states and results of trainings at the end of a run; the newest are kept."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

logger = logging.getLogger(__name__)

_KEPT = 4
"""Number of states kept where settings that are not validated give none."""


class FinishedTrainingHook:
    """Removes old states and results of trainings from the folders of checkpoints.

    A training of the same identity is then not repeated by a second run, after a kill in a later node, or by DVC,
    which deletes a stage's outputs before it runs the stage again.
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
                logger.warning("Old training states could not be removed (%s); they take disk space.", error)


def state_folders(pipeline: Pipeline, catalog: CatalogProtocol) -> Iterator[tuple[Path, int]]:
    """Yield folders of states and checkpoints, and how many to keep, of trainings whose results a pipeline touches.

    Results that are only used count too: a run that resumes after its trainings has to clean up after them.
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
        # Kedro validates only the blocks that the run needs.
        plain = settings if isinstance(settings, Mapping) else settings.model_dump()
        for block in (plain, *(value for value in plain.values() if isinstance(value, Mapping))):
            if isinstance(folder := block.get("checkpoint_folder"), str):
                count = block.get("kept_trainings")
                count = count if isinstance(count, int) else _KEPT
                yield Path(folder), count
                if isinstance(validation := block.get("validation"), Mapping):
                    yield Path(validation["folder"]) / "trainings", count
