"""Recording of a dataset in MLflow, as its catalog entry specifies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import CatalogProtocol

from vr_pipeline.engine.state import WEIGHTS
from vr_pipeline.hooks.live_curves import curve_name
from vr_pipeline.hooks.recipe_runs import put_example_clips
from vr_pipeline.lineage.figures import numbers
from vr_pipeline.project.places import stored_at
from vr_pipeline.runtime.live_curves import checkpoint_row

if TYPE_CHECKING:
    from vr_pipeline.hooks.run_log import RunLog

METRICS = "evaluation_metrics"
_TRAINING_LOGS, _VALIDATION_LOGS = "training_log_", "validation_log_"


def mark_of(catalog: CatalogProtocol, name: str) -> Mapping[str, Any] | None:
    """Return a catalog entry's ``metadata.mlflow``, empty for ``true``; None if the dataset is not recorded."""
    metadata = getattr(catalog.get(name), "metadata", None)
    mark = metadata.get("mlflow") if isinstance(metadata, Mapping) else None
    return mark if isinstance(mark, Mapping) else {} if mark else None


def put_dataset(log: RunLog, name: str, catalog: CatalogProtocol) -> dict[str, float] | None:
    """Record curves, numbers and the file of a dataset; return its numbers if the catalog marks them as metrics."""
    mark, metrics = mark_of(catalog, name), None
    if curve := curve_name(name):
        rows = catalog.load(name).select_dtypes("number").to_dict("records")
        log.curve(curve, rows, of_recipe=name.startswith(_TRAINING_LOGS))
    elif name.startswith(_VALIDATION_LOGS):
        recipe, rows = name.removeprefix(_VALIDATION_LOGS), catalog.load(name).to_dict("records")
        log.curve(recipe, [checkpoint_row(row) for row in rows], of_recipe=True)
        if mark and (kept := mark.get("weights")):
            _put_checkpoints(log, recipe, rows, Path(kept))
    if mark and mark.get("metrics"):
        metrics = dict(numbers(catalog.load(name), name))
        log.numbers(metrics)
    place = stored_at(catalog, name) if mark is not None else None
    if place is None or not place.exists():
        return metrics
    if mark and (index := mark.get("clips")):
        if catalog.exists(index):
            put_example_clips(log, place, catalog.load(index))
        return metrics
    log.result(name, place)
    if place.suffix == ".png":
        log.picture(name, place)
    return metrics


def _put_checkpoints(log: RunLog, recipe: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """Record the kept weights of judged checkpoints."""
    for row in rows:
        for place in sorted(folder.glob(f"*{WEIGHTS}/{row['policy']}"))[:1]:
            log.result(f"checkpoints/{recipe}/step-{int(row['step']):06d}", place)
