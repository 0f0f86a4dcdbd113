"""The commands ``kedro lineage sync``, ``show``, ``diff``, ``reproduce`` and ``upload``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vr_pipeline.project.folder import project_folder
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.terminal import echo

if TYPE_CHECKING:
    from vr_pipeline.lineage.runs import RunStore
    from vr_pipeline.lineage.tracking import MlflowConfiguration

_env = click.option(
    "--env", "-e", default="base", show_default=True, help="Environment whose mlflow.yml names the store of runs."
)


@click.group(name="lineage")
def lineage() -> None:
    """Show where results come from, and repeat old runs."""


@lineage.command(name="sync")
@click.option("--check", is_flag=True, help="Change nothing; the exit code is 1 if a dvc.yaml is outdated.")
@click.option(
    "--env", "-e", help="One environment: base has dvc.yaml, another conf/<env>/dvc.yaml. Default: all that have one."
)
@click.option("--stdout", is_flag=True, help="Print the stages and write nothing.")
def sync(check: bool, env: str | None, stdout: bool) -> None:
    """Derive dvc.yaml from pipelines, catalog and parameters."""
    with plain_errors():
        from importlib.resources import files

        from vr_pipeline.lineage.project import check_places, followed_environments, open_project
        from vr_pipeline.lineage.stages import CALLER

        project = project_folder()
        environments = [env] if env else followed_environments(project)
        followed = list(dict.fromkeys([*followed_environments(project), *environments]))
        derived = {name: open_project(project, name) for name in followed}
        check_places(derived)
        if stdout:
            echo("".join(text for name in environments for _, text in derived[name].files(project).values()), nl=False)
            return
        # The script by which stages call kedro.
        caller = files("vr_pipeline.lineage").joinpath("templates", Path(CALLER).name).read_text(encoding="utf-8")
        drifted = _write(project / CALLER, project, caller, "", check)
        for name in environments:
            for path, (count, text) in derived[name].files(project).items():
                drifted |= _write(path, project, text, f" ({count} stage{'s' * (count > 1)})", check)
        if drifted:
            raise SystemExit(1)


def _write(path: Path, project: Path, text: str, shown: str, check: bool) -> bool:
    """Write a derived file, or with ``check`` show its differences; return whether it remains outdated."""
    import difflib

    name = str(path.relative_to(project))
    present = path.read_text(encoding="utf-8") if path.is_file() else ""
    if present == text:
        if shown:
            echo(f"{name} is up to date{shown}.")
        return False
    if check:
        lines = difflib.unified_diff(present.splitlines(), text.splitlines(), name, "derived", lineterm="", n=1)
        echo("\n".join(lines))
        echo(f"{name} is outdated. To update it: kedro lineage sync", fg="red", err=True)
        return True
    write_text(path, text)
    if shown:
        echo(f"{name} written{shown}.")
    return False


@lineage.command(name="show")
@click.argument("what")
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Also write the graph as an HTML page.")
@_env
def show(what: str, page: Path | None, env: str) -> None:
    """Show the chain from supplied data to WHAT.

    A run is named by its identifier, the beginning of it, its name or 'latest'; a model by its name, NAME@ALIAS or
    NAME/VERSION; a file or folder stands for the run that wrote its content, an experiment of DVC for its last run.
    """
    with plain_errors():
        from vr_pipeline.errors import InputError
        from vr_pipeline.lineage.chain import trace, tree_lines
        from vr_pipeline.lineage.page import render_page

        store = run_store(env)
        run = store.find(what)
        version = store.model(what)
        ends = trace(store, run, version.tags.get("dataset") if version is not None else None)
        if not ends:
            raise InputError(
                f"run {run.short} ({run.name}) has no record of its stages", remedy="name a run of this version"
            )
        title = f"run {run.short} ({run.name})"
        if version is not None:
            score = f", score {float(version.tags['score']):.4f}" if "score" in version.tags else ""
            aliases = "".join(f" ({alias})" for alias in store.aliases(version))
            title = f"model {version.name}, version {version.version}{aliases}{score}"
        echo(f"{title[0].upper()}{title[1:]}")
        echo("\n".join(tree_lines(ends)))
        if page is not None:
            write_text(page, render_page(f"Where {title} comes from", ends))
            echo(f"Graph: {page}")


@lineage.command(name="diff")
@click.argument("first")
@click.argument("second")
@click.option("--most", default=8, show_default=True, type=click.IntRange(1), help="Lines per subject.")
@_env
def diff(first: str, second: str, most: int, env: str) -> None:
    """Show how two runs differ: code, parameters, data, results.

    FIRST and SECOND are runs, models, files or experiments. Each includes the runs that made its inputs.
    """
    with plain_errors():
        from vr_pipeline.lineage.chain import executions, trace
        from vr_pipeline.lineage.compare import Account, differences, lines

        store = run_store(env)
        a, b = (Account(run, executions(trace(store, run))) for run in (store.find(first), store.find(second)))
        shown = (f"{one.run.short} ({one.run.name}, commit {one.run.commit})" for one in (a, b))
        echo(" -> ".join(shown))
        echo("\n".join(lines(differences(a, b), most)))


@lineage.command(name="reproduce")
@click.argument("what")
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where the worktree is made. Default: a temporary folder."
)
@click.option("--keep", is_flag=True, help="Keep the worktree even if everything is the same.")
@click.option("--stop-early", is_flag=True, help="Skip everything after the first stage that differs.")
@click.option("--trust", is_flag=True, help="Also run changes and commits of others, with your permissions.")
@_env
def reproduce(what: str, folder: Path | None, keep: bool, stop_early: bool, trust: bool, env: str) -> None:
    """Run WHAT again at its commit and compare every hash.

    WHAT is a run, a model or a file. The exit code is 0 if all are equal, 1 if a stage differs or fails, 2 if code or
    data are missing, were changed in the store, or come from others (see --trust).
    """
    import shutil
    import tempfile

    from vr_pipeline.errors import InputError
    from vr_pipeline.lineage.repository import git
    from vr_pipeline.lineage.reproduce import report_lines
    from vr_pipeline.lineage.reproduce import reproduce as run_again

    with plain_errors():
        project = project_folder()
    place = folder.resolve() if folder else Path(tempfile.mkdtemp(prefix="reproduce-")) / "worktree"
    same = False
    try:
        with plain_errors():
            if place.exists():
                raise InputError("the folder exists", remedy="name one that does not", file=place)
            store = run_store(env)
            result = run_again(
                store,
                store.find(what),
                project,
                place,
                stop_early=stop_early,
                trust=trust,
                say=lambda text: echo(text, err=True),
            )
            echo("\n".join(report_lines(result)))
            same = result.first_difference is None
    except click.ClickException as error:
        error.show()
        raise SystemExit(2) from error
    finally:
        if same and not keep:
            for made in [place, *place.parent.glob(f"{place.name}-*")]:
                git(project, "worktree", "remove", "--force", str(made))
        if folder is None and (not place.exists() or (same and not keep)):
            shutil.rmtree(place.parent, ignore_errors=True)
        elif place.exists():
            echo(f"Kept for inspection: {place} (git worktree remove --force {place} deletes it)", err=True)
    if not same:
        raise SystemExit(1)


@lineage.command(name="upload")
@_env
def upload(env: str) -> None:
    """Send runs that were recorded offline to the tracking store."""
    with plain_errors():
        from mlflow.exceptions import MlflowException

        from vr_pipeline.errors import InputError
        from vr_pipeline.lineage.delivery import upload as send
        from vr_pipeline.lineage.delivery import waiting
        from vr_pipeline.lineage.gateway import first_line
        from vr_pipeline.lineage.tracking import connect

        configuration, project = _configuration(env), project_folder()
        server = connect(configuration, project, offline=False)
        offline = connect(configuration, project, offline=True)
        runs = waiting(offline)
        for run in runs:
            try:
                run_id = send(offline, server, run)
            except (MlflowException, OSError) as error:
                raise InputError(
                    f"run {run.info.run_id[:8]} could not be sent ({first_line(error)})",
                    remedy="try again; runs that were sent are not sent again",
                ) from error
            echo(f"{run.info.run_name}: {run.info.run_id[:8]} is run {run_id[:8]} there")
        echo(f"{len(runs)} run(s) sent to {configuration.tracking_uri}.")


def _configuration(env: str) -> MlflowConfiguration:
    from vr_pipeline.lineage.project import configuration_loader
    from vr_pipeline.lineage.tracking import read_configuration

    return read_configuration(dict(configuration_loader(project_folder(), env)["mlflow"]))


def run_store(env: str) -> RunStore:
    """Return the runs of the environment's experiment; those in the offline store if the server is unavailable."""
    from vr_pipeline.lineage.runs import RunStore
    from vr_pipeline.lineage.tracking import connect

    project = project_folder()
    connection = connect(_configuration(env), project)
    if connection.offline:
        echo(
            f"The tracking store cannot be used ({connection.reason}): showing only runs that were recorded offline.",
            err=True,
        )
    return RunStore(connection.client, connection.experiment, project)
