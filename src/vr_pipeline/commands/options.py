"""Options and outputs that several commands share."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from vr_pipeline.project.machines import VARIABLE
from vr_pipeline.terminal import echo

ENVIRONMENT = click.option(
    "--env", "-e", default="base", show_default=True, help="Configuration: conf/<env> over conf/base."
)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of tables.")
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


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


def print_json(document: Any) -> None:
    """Print a result for programs."""
    echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_notes(notes: Iterable[str]) -> None:
    """Print what a user has to know of a result, apart from the result."""
    for note in notes:
        echo(f"Note: {note}", fg="yellow", err=True)
