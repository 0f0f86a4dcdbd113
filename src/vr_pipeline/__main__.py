"""``python -m vr_pipeline``: the packaged project.

``python -m vr_pipeline init FOLDER`` makes a folder with configuration and demo data. In it every command of the
project works (``python -m vr_pipeline score ...`` as ``kedro score ...``), and options without a command are those of
``kedro run``.
"""

import sys
from pathlib import Path
from typing import Any

import click

from vr_pipeline.runtime.environment import prepare_environment
from vr_pipeline.runtime.surroundings import WORKING_DIRECTORY_GONE, working_directory_is_there
from vr_pipeline.terminal import echo

prepare_environment()

_PROGRAM = "python -m vr_pipeline"


def main(*arguments: Any, **options: Any) -> Any:
    """Create a project folder or run a command in one; arguments of a call are passed to ``kedro run``."""
    if not working_directory_is_there():
        raise SystemExit(WORKING_DIRECTORY_GONE)
    if not arguments and not options:
        words = sys.argv[1:]
        if words[:1] == ["init"]:  # needs no project
            return init(args=words[1:], prog_name=f"{_PROGRAM} init")
        return _commands()(args=words, prog_name=_PROGRAM)
    from kedro.framework.cli.utils import find_run_command
    from kedro.framework.project import configure_project

    package = Path(__file__).parent.name
    configure_project(package)
    options["standalone_mode"] = not hasattr(sys, "ps1")
    return find_run_command(package)(*arguments, **options)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Create FOLDER with configuration, embedded demo and notebooks."""
    from vr_pipeline.errors import PipelineError
    from vr_pipeline.project.template import init_project

    try:
        made = init_project(folder)
    except PipelineError as error:
        raise click.ClickException(str(error)) from error
    echo(f"{folder} has {', '.join(made)}.")
    echo(f"Next: cd {folder} && python -m vr_pipeline --pipeline=mpo_dpo")


class RunIsUsual(click.Group):
    """Commands with ``run`` as the default."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def _commands() -> click.Group:
    """Return the project's commands, for a folder that is a project."""
    from kedro.utils import find_kedro_project

    project = find_kedro_project(Path.cwd())
    if project is None and not {"--help", "-h"} & set(sys.argv[1:]):
        raise SystemExit(f"This folder is not a vr_pipeline project. Create one: '{_PROGRAM} init FOLDER'.")
    if project is not None:
        from kedro.framework.startup import bootstrap_project

        bootstrap_project(project)
    from vr_pipeline.cli import cli

    return RunIsUsual(
        commands={**cli.commands, "init": init},
        help="Fine-tune text-to-video models with an interpretable reward. The default command is 'run'.",
    )


if __name__ == "__main__":
    main()
