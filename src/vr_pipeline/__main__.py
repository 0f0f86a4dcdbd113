"""``python -m vr_pipeline``: the packaged project.

``python -m vr_pipeline init FOLDER`` makes a folder with configuration and demo data; in it, arguments are those of
``kedro run``, and the other commands (``kedro graph``, ``kedro score``, ...) work as in the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from vr_pipeline.environment import prepare_environment

prepare_environment()


def main(*arguments: Any, **options: Any) -> Any:
    """Make a project folder, or configure the project and run a pipeline; arguments as for ``kedro run``."""
    if not arguments and not options and sys.argv[1:2] == ["init"]:
        return init(args=sys.argv[2:], prog_name="python -m vr_pipeline init")
    from kedro.framework.cli.utils import find_run_command
    from kedro.framework.project import configure_project

    package = Path(__file__).parent.name
    configure_project(package)
    options["standalone_mode"] = not hasattr(sys, "ps1")
    return find_run_command(package)(*arguments, **options)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make FOLDER with configuration, embedded demo and notebooks."""
    from vr_pipeline.errors import PipelineError
    from vr_pipeline.packaged import init_project

    try:
        made = init_project(folder)
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{folder} has {', '.join(made)}.")
    click.echo(f"Next: cd {folder} && python -m vr_pipeline --pipeline=mpo_dpo")


if __name__ == "__main__":
    main()
