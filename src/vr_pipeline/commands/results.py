"""The command ``kedro results``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vr_pipeline.commands.options import print_json
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo

if TYPE_CHECKING:
    from vr_pipeline.evaluation.results import Result
    from vr_pipeline.lineage.runs import Run, RunStore

METRICS = "evaluation_metrics"


@click.command(name="results")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "--last", default=3, show_default=True, type=click.IntRange(1), help="Number of runs to show without RUN."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--env", "-e", default="base", show_default=True, help="Environment of the runs: conf/<env> over conf/base."
)
def results(runs: tuple[str, ...], last: int, as_json: bool, env: str) -> None:
    """Show the gains of runs by judge, oracle and auditor.

    Shows them in total and by dimension, with pairs and time.

    RUN is the identifier of a recorded run (or its beginning), its name, 'latest', or an evaluation_metrics.json.
    Without RUN: the newest runs with an evaluation, or the current figures if no run is recorded.
    """
    with plain_errors():
        from vr_pipeline.evaluation.results import table_lines

        found = _given(runs, env) if runs else _newest(last, env)
        if as_json:
            print_json([result.to_json() for result in found])
        else:
            echo("\n".join(table_lines(found)))


def _given(runs: Sequence[str], env: str) -> list[Result]:
    from vr_pipeline.commands.lineage import run_store
    from vr_pipeline.errors import InputError

    store, found = None, []
    for text in runs:
        if text.endswith(".json") and Path(text).is_file():
            found.append(_of_file(Path(text)))
            continue
        store = store or run_store(env)
        run = next(filter(_evaluated, store.all()), None) if text == "latest" else store.find(text)
        result = None if run is None else _of_run(store, run)
        if result is None:
            raise InputError(f"run {text} has no evaluation", remedy="name a run that ran the stage evaluation")
        found.append(result)
    return found


def _newest(last: int, env: str) -> list[Result]:
    from itertools import islice

    from vr_pipeline.commands.lineage import run_store
    from vr_pipeline.errors import InputError
    from vr_pipeline.lineage.project import configuration_loader
    from vr_pipeline.lineage.tracking import read_configuration
    from vr_pipeline.project.folder import project_context, project_folder
    from vr_pipeline.project.places import stored_at

    loader = configuration_loader(project_folder(), env)
    if read_configuration(dict(loader["mlflow"])).enabled:
        store = run_store(env)
        made = (result for run in store.all() if (result := _of_run(store, run)) is not None)
        if found := list(islice((result for result in made if result.facts["env"] in ("", env)), last)):
            return found
    place = stored_at(project_context(env).catalog, METRICS)
    if place is None or not place.is_file():
        raise InputError(
            f"there are no results of conf/{env} yet", remedy="run a pipeline that ends with the stage evaluation"
        )
    return [_of_file(place)]


def _evaluated(run: Run) -> bool:
    from vr_pipeline.lineage.runs import OUTPUT

    return f"{OUTPUT}{METRICS}" in run.tags


def _of_file(path: Path) -> Result:
    from vr_pipeline.errors import InputError
    from vr_pipeline.evaluation.results import Result

    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        return Result(
            str(path), {key: metrics[key] for key in ("gain", "win_rate", "pairs")} | metrics, {"file": str(path)}
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "this is no file of evaluation metrics", remedy="name an evaluation_metrics.json", file=path
        ) from error


def _of_run(store: RunStore, run: Run) -> Result | None:
    """Return the figures of a run's metrics file; None if it has none."""
    from vr_pipeline.evaluation.results import Result
    from vr_pipeline.hooks.summary import duration

    if not _evaluated(run):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(store.client.download_artifacts(run.id, f"{METRICS}.json", folder))
        metrics = json.loads(path.read_text(encoding="utf-8"))
    tags = run.tags
    facts: dict[str, Any] = {
        "run": run.id,
        "pipelines": tags.get("kedro.pipelines", ""),
        "env": tags.get("kedro.env", ""),
        "started": run.started.isoformat(timespec="seconds"),
        "seconds": run.seconds,
        "commit": run.commit,
    }
    took = "" if run.seconds is None else duration(run.seconds)
    parts = [run.short, facts["pipelines"], facts["env"], f"{run.started:%Y-%m-%d %H:%M} UTC", took]
    return Result("  ".join(filter(None, parts)), metrics, facts)
