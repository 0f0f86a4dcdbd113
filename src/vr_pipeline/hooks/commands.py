"""The commands that messages suggest, with the environment and parameters of the current run."""

import shlex
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from vr_pipeline.lineage.figures import flattened

_KEPT = ("--conf-source", "--runner-params", "--machine")


def kept_options(run_params: Mapping[str, Any]) -> list[str]:
    """Return the options of a run that another command has to repeat: environment, parameters, configuration."""
    options = [f"--env={run_params['env']}"] if run_params.get("env") else []
    if given := run_params.get("runtime_params"):
        options.append(f"--params={','.join(f'{name}={value}' for name, value in flattened(given))}")
    typed = sys.argv[1:]
    for position, word in enumerate(typed):
        if word in _KEPT and position + 1 < len(typed):
            options.append(f"{word}={typed[position + 1]}")
        elif word.startswith(tuple(f"{option}=" for option in _KEPT)):
            options.append(word)
    return options


def run_command(run_params: Mapping[str, Any], *, pipelines: Iterable[str] = (), from_nodes: Iterable[str] = ()) -> str:
    """Return the run's command with other pipelines and first nodes."""
    names = [name for name in pipelines if name != "__default__"]
    where = [f"--pipelines={','.join(names)}" if len(names) > 1 else f"--pipeline={names[0]}"] if names else []
    begin = [f"--from-nodes={','.join(from_nodes)}"] if from_nodes else []
    return shlex.join(["kedro", "run", *kept_options(run_params), *where, *begin])
