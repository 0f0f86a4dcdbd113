"""Nested MLflow runs, one per recipe, and example clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

from vr_pipeline.hooks.live_curves import METRICS_A_CALL, metric_name
from vr_pipeline.identifiers import content_hash
from vr_pipeline.lineage.gateway import Target
from vr_pipeline.lineage.runs import PARENT

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Metric

    from vr_pipeline.hooks.run_log import RunLog

_FIGURES = ("gain", "gain_by_dimension", "win_rate", "policies", "pairs")
"""Parts of evaluation_metrics whose next level is the recipe."""

_RECIPE = "recipe"
_PROMPTS = 4
"""Number of prompts with example clips."""


def put_recipe_runs(log: RunLog, figures: Mapping[str, float], tags: Mapping[str, str], status: str) -> None:
    """Record one nested run per recipe, so that MLflow overlays their curves and figures.

    Args:
        log: holds the curves by recipe.
        figures: numbers of evaluation_metrics by dotted name, which starts with the dataset's.
        tags: of the nested runs.
        status: of the run.
    """
    from mlflow.entities import Metric

    own: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        _, kind, recipe, *rest = [*name.split(".", 3), "", ""]
        if kind in _FIGURES and rest[0] and recipe != "original":
            own.setdefault(recipe, {})[f"{kind}.{rest[0]}"] = value
    now = int(time() * 1000)
    for recipe in dict.fromkeys([*log.recipe_curves, *own]):
        metrics = [
            Metric(point.key.removeprefix(f"{recipe}/"), point.value, point.timestamp, point.step)
            for point in log.recipe_curves.get(recipe, ())
        ]
        metrics += [Metric(metric_name(name), value, now, 0) for name, value in own.get(recipe, {}).items()]
        send = partial(_record, recipe=recipe, metrics=metrics, tags=tags, status=status)
        log.gateway.put(f"the run of {recipe}", send)


def _record(to: Target, *, recipe: str, metrics: Sequence[Metric], tags: Mapping[str, str], status: str) -> None:
    """Create the nested run, or complete the one of an earlier attempt."""
    query = f"tags.`{PARENT}` = '{to.run_id}' and tags.`{_RECIPE}` = '{recipe}'"
    begun = [run.info.run_id for run in to.client.search_runs([to.experiment], query)]
    if not begun:
        own = {**tags, PARENT: to.run_id, _RECIPE: recipe}
        begun = [to.client.create_run(to.experiment, tags=own, run_name=recipe).info.run_id]
    for start in range(0, len(metrics), METRICS_A_CALL):
        to.client.log_batch(begun[0], metrics=metrics[start : start + METRICS_A_CALL])
    to.client.set_terminated(begun[0], status)


def put_example_clips(log: RunLog, place: Path, index: pd.DataFrame) -> None:
    """Record the first clips of a few prompts as videos, one folder per prompt.

    Args:
        log: receives them.
        place: folder of the clips.
        index: their video index with policy; a hash selects the prompts, as on the report page.
    """
    made = index[(index["status"] == "ok") & (index["sample_index"] == index["sample_index"].min())]
    prompts = sorted(made["prompt_id"].unique(), key=lambda name: content_hash("shown prompt", str(name)))
    for prompt in prompts[:_PROMPTS]:
        rows: list[dict[Any, Any]] = made[made["prompt_id"] == prompt].to_dict("records")
        words = "".join(letter if letter.isalnum() else " " for letter in str(rows[0]["prompt"])).split()
        name = "-".join([str(prompt)[:6], *words])[:60]
        folder = log.new_folder(name)
        for row in rows:
            clip = place / str(row["path"])
            log.link(clip, folder / f"{row['policy']}{clip.suffix}")
        log.files(f"clips of {name}", folder, f"clips/{name}")
