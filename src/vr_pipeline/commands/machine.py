"""The option ``--machine`` of commands that read the configuration."""

import os

import click

from vr_pipeline.project.machines import VARIABLE


def _choose(context: click.Context, option: click.Parameter, name: str | None) -> None:
    """Set the environment variable that the configuration loader and child processes read."""
    if name:
        os.environ[VARIABLE] = name


MACHINE = click.Option(
    ["--machine"],
    metavar="NAME",
    expose_value=False,
    callback=_choose,
    help=f"Machine profile conf/machines/NAME.yml over the environment [default: {VARIABLE}].",
)
