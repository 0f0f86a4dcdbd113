"""Commands on lineage: ``kedro lineage sync`` and its siblings."""

from __future__ import annotations

from pathlib import Path

import click

from vr_pipeline.plain_errors import plain_errors


@click.group(name="lineage")
def lineage() -> None:
    """Where results come from: stages for DVC, chains of runs, repetition of old ones."""


@lineage.command(name="sync")
@click.option("--check", is_flag=True, help="Change nothing; the exit code is 1 if a dvc.yaml has drifted.")
@click.option(
    "--env", "-e", help="One environment: base has dvc.yaml, another conf/<env>/dvc.yaml. Default: all that have one."
)
@click.option("--stdout", is_flag=True, help="Print the stages and write nothing.")
def sync(check: bool, env: str | None, stdout: bool) -> None:
    """Derive dvc.yaml from the pipelines, the catalog and the parameter files."""
    with plain_errors():
        from vr_pipeline.lineage.project import followed_environments, open_project, refuse_shared_places, stages_file

        project = Path.cwd()
        environments = [env] if env else followed_environments(project)
        followed = list(dict.fromkeys([*followed_environments(project), *environments]))
        derived = {name: open_project(project, name) for name in followed}
        refuse_shared_places(derived)
        if stdout:
            click.echo("".join(derived[name].text for name in environments), nl=False)
            return
        drifted = False
        for name in environments:
            drifted |= _write(stages_file(project, name), project, derived[name].text, len(derived[name].stages), check)
        if drifted:
            raise SystemExit(1)


def _write(path: Path, project: Path, text: str, count: int, check: bool) -> bool:
    """Write the stages, or show how they differ; whether they do and stay so."""
    shown = path.relative_to(project)
    present = path.read_text(encoding="utf-8") if path.is_file() else ""
    if present == text:
        click.echo(f"{shown} is up to date ({count} stages).")
    elif check:
        import difflib

        lines = difflib.unified_diff(present.splitlines(), text.splitlines(), str(shown), "derived", lineterm="", n=1)
        click.echo("\n".join(lines))
        click.secho(f"{shown} has drifted. Write it anew: kedro lineage sync", fg="red", err=True)
        return True
    else:
        path.write_text(text, encoding="utf-8", newline="\n")
        click.echo(f"{shown} written ({count} stages).")
    return False
