"""The command ``kedro plan``."""

from __future__ import annotations

from typing import Any

import click
from kedro.framework.cli.utils import _split_params

from vr_pipeline.commands.options import AS_JSON, MACHINE, print_json
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import echo


def _numbers(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, int]:
    from vr_pipeline.planning.opening import NUMBERS

    found = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in NUMBERS or not value.replace("_", "").isdecimal():
            raise click.BadParameter(f"'{text}' is not NAME=NUMBER with one of {', '.join(NUMBERS)}")
        found[name] = int(value)
    return found


@click.command(name="plan")
@click.option("--env", "-e", default=None, help="Environment of the configuration.")
@click.option("--pipeline", "-p", default=None, metavar="NAME", help="The system [default: the environment's].")
@click.option("--params", default="", callback=_split_params, help="Parameters, as for kedro run.")
@click.option(
    "--set",
    "numbers",
    multiple=True,
    callback=_numbers,
    metavar="NAME=NUMBER",
    help="Assume another number, for instance prompts=1000000.",
)
@click.option("--gpus", type=click.IntRange(1), help="Assume this number of GPUs instead of the runner's.")
@AS_JSON
def plan(
    env: str | None,
    pipeline: str | None,
    params: dict[str, Any],
    numbers: dict[str, int],
    gpus: int | None,
    as_json: bool,
) -> None:
    """Show the cost of a run before it starts.

    Shows work, GPU-hours, memory, disk, models, and what is missing. Loads no model. Figures are marked published,
    calculated, assumed or measured; docs/gpu_and_clusters.md has the formulas. Also counts finished results that the
    run would keep.
    """
    with plain_errors():
        from vr_pipeline.planning.document import plan_document, plan_lines
        from vr_pipeline.planning.opening import open_project
        from vr_pipeline.project.folder import project_folder

        project = project_folder()
        opened = open_project(project, env, pipeline, parameters=params, numbers=numbers, gpus=gpus)
        document = plan_document(opened, project)
    if as_json:
        print_json(document)
    else:
        echo("\n".join(plan_lines(document)))


plan.params.append(MACHINE)
