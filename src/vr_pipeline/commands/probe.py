"""The command ``kedro probe``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vr_pipeline.commands.options import AS_JSON, ENVIRONMENT, print_json
from vr_pipeline.project.plain_errors import plain_errors
from vr_pipeline.terminal import aligned, echo

if TYPE_CHECKING:
    from vr_pipeline.training.config import DpoTrainingParameters
    from vr_pipeline.training.probe.advice import Advice, Health
    from vr_pipeline.training.probe.grid import Costs, Grid
    from vr_pipeline.training.probe.measure import Cell, Probe
    from vr_pipeline.training.validation import CheckpointValidation

_PREPARED = ("training_pairs", "latents", "prompt_conditions", "checkpoint_reward")
"""Datasets that dpo_training makes before it trains."""


def _numbers(context: click.Context, option: click.Parameter, text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is no list of numbers, such as 1e-5,1e-4") from error
    if not all(0 < value < float("inf") for value in values):
        raise click.BadParameter("all numbers must be above 0")
    return tuple(values)


@click.command(name="probe")
@ENVIRONMENT
@click.option(
    "--recipe", metavar="NAME", help="Recipe whose pairs and settings are used [default: the first that has pairs]."
)
@click.option("--minutes", default=60.0, show_default=True, type=click.FloatRange(0, min_open=True), help="Time limit.")
@click.option("--steps", default=32, show_default=True, type=click.IntRange(1), help="Steps of each combination.")
@click.option(
    "--learning-rates",
    callback=_numbers,
    metavar="LIST",
    help="Such as 1e-6,1e-5 [default: five around the configured one].",
)
@click.option(
    "--betas", callback=_numbers, metavar="LIST", help="Such as 100,500,2000 [default: five around the configured one]."
)
@AS_JSON
def probe(
    env: str,
    recipe: str | None,
    minutes: float,
    steps: int,
    learning_rates: tuple[float, ...],
    betas: tuple[float, ...],
    as_json: bool,
) -> None:
    """Try learning rates and betas, and recommend a setting.

    Every combination is trained for a few dozen steps. Needs pairs, latents and text conditions:

    \b
    kedro run --to-outputs=training_pairs,latents,prompt_conditions,checkpoint_reward

    First shows its duration; with a short time limit, tries fewer steps and settings. A stopped probe resumes. Results:
    08_reporting/probe in the environment's data folder.
    """
    with plain_errors():
        from vr_pipeline.training.probe.advice import Health, advise
        from vr_pipeline.training.probe.grid import Grid, around, fitted
        from vr_pipeline.training.probe.measure import planned

        tried, parameters, name, folder = _open(env, recipe)
        training = parameters.training
        asked = Grid(learning_rates or around(training.learning_rate), betas or around(training.beta), steps)
        limit = 60 * minutes

        def plan() -> tuple[Grid, Costs]:
            costs = tried.costs()
            return fitted(asked, costs, limit), costs

        identity = f"{asked} {minutes} {tried.identity(training)}"
        grid, costs = planned(folder, identity, plan)
        _announce(grid, asked, costs, minutes, err=as_json)
        cells = [tried.run(rate, beta, grid.steps) for rate, beta in grid.cells]
        health = Health.of(training.safeguard)
        advice = advise(cells, health, grid.steps)
        document = _write(folder, name, grid, cells, health, advice)
        if as_json:
            print_json(document)
        else:
            _print(cells, health, advice, folder, env, name)


def _open(env: str, recipe: str | None) -> tuple[Probe, DpoTrainingParameters, str, Path]:
    """Return the probe of a recipe's pairs, with parameters, recipe and folder."""
    from vr_pipeline.errors import InputError
    from vr_pipeline.generators.config import GeneratorParameters
    from vr_pipeline.project.folder import project_context
    from vr_pipeline.training.config import DpoTrainingParameters
    from vr_pipeline.training.inputs import contents_hash
    from vr_pipeline.training.policies import pair_data
    from vr_pipeline.training.probe.measure import Probe

    context = project_context(env)
    catalog = context.catalog
    missing = [name for name in _PREPARED if not catalog.exists(name)]
    if missing:
        raise InputError(
            f"the pairs are not prepared: there is no dataset {missing[0]}",
            remedy=f"run kedro run --env={env} --to-outputs={','.join(_PREPARED)} first",
        )
    pairs = catalog.load("training_pairs")
    names = list(dict.fromkeys(pairs["recipe"]))
    name = recipe or (names[0] if names else "")
    if name not in names:
        raise InputError(f"there are no pairs of the recipe '{name}'", remedy=f"choose one of {', '.join(names)}")
    pairs = pairs[pairs["recipe"] == name].reset_index(drop=True)
    parameters = DpoTrainingParameters.model_validate(context.params["dpo_training"]).for_recipe(name)
    generator = GeneratorParameters.model_validate(context.params["generator"])
    data = pair_data(pairs, catalog.load("latents"), catalog.load("prompt_conditions"), contents_hash(pairs))
    folder = Path(context.project_path) / context.config_loader["globals"]["data"] / "08_reporting" / "probe" / name
    folder.mkdir(parents=True, exist_ok=True)
    judged = _judge(catalog.load("checkpoint_reward"), pairs, folder) if parameters.validation is not None else None
    return Probe(data, generator, parameters, folder, judged), parameters, name, folder


def _judge(
    checkpoint_reward: dict[str, Any], pairs: Any, folder: Path
) -> Callable[[DpoTrainingParameters], CheckpointValidation] | None:
    """Return a function that judges short trainings as checkpoints, with clips in the probe's folder."""
    from vr_pipeline.items.filling import fill_folder
    from vr_pipeline.training.checkpoint_reward import CheckpointReward
    from vr_pipeline.training.validation import CheckpointValidation

    reward = CheckpointReward.model_validate(checkpoint_reward)
    model = reward.model()
    if model is None:
        return None

    def judge(parameters: DpoTrainingParameters) -> CheckpointValidation:
        assert parameters.validation is not None
        own = {"folder": str(folder / "validation"), "keep_weights": False}
        settings = parameters.model_copy(update={"validation": parameters.validation.model_copy(update=own)})
        return CheckpointValidation(pairs, reward.prompt_table, model, settings, fill=fill_folder)

    return judge


def _announce(grid: Grid, asked: Grid, costs: Costs, minutes: float, *, err: bool) -> None:
    seconds = costs.seconds(grid)
    echo(
        f"{len(grid.learning_rates)} learning rates x {len(grid.betas)} betas, {grid.steps} steps each: "
        f"about {_time(seconds)} ({costs.step:.3g} s a step, {costs.judgement:.3g} s a judgement).",
        err=err,
    )
    if grid != asked:
        echo(
            f"Because of the limit of {minutes:g} minutes, the grid is smaller than {len(asked.learning_rates)} x "
            f"{len(asked.betas)} settings of {asked.steps} steps, which would take {_time(costs.seconds(asked))}.",
            fg="yellow",
            err=err,
        )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _write(
    folder: Path, recipe: str, grid: Grid, cells: Sequence[Cell], health: Health, advice: Advice
) -> dict[str, Any]:
    """Write the results as JSON, and the map as PNG and SVG."""
    from dataclasses import asdict

    from vr_pipeline.storage.atomic import replaced, write_text
    from vr_pipeline.training.probe.plot import probe_map

    document = {
        "recipe": recipe,
        "steps": grid.steps,
        "learning_rates": list(grid.learning_rates),
        "betas": list(grid.betas),
        "limits": health._asdict(),
        "cells": [asdict(cell) | {"trouble": health.trouble(cell)} for cell in cells],
        "advice": advice.to_json(),
    }
    write_text(folder / "probe.json", json.dumps(document, indent=2) + "\n")
    figure = probe_map(cells, grid, health, advice, title=f"Probe of {recipe}, {grid.steps} steps each")
    for kind in ("png", "svg"):
        with replaced(folder / f"probe.{kind}") as path:
            figure.savefig(path, format=kind, dpi=150)
    return document


def _print(cells: Sequence[Cell], health: Health, advice: Advice, folder: Path, env: str, recipe: str) -> None:
    titles = ("learning rate", "beta", "gain", "95 % interval", "accuracy", "winners' error", "norm ratio", "loss", "")
    rows = [titles, *(_row(cell, health) for cell in cells)]
    echo("\n".join(aligned(rows, left={len(titles) - 1})))
    if advice.learning_rate is None:
        echo(f"\nNo advice: {advice.reason}.", fg="yellow")
    else:
        echo(f"\nTrain with learning_rate {advice.learning_rate:g} and beta {advice.beta:g}. {advice.reason}")
        settings = f"{{learning_rate: {advice.learning_rate:g}, beta: {advice.beta:g}}}"
        echo(f"In the parameters of conf/{env}: dpo_training: {{recipes: {{{recipe}: {settings}}}}}")
    echo(f"Written to {folder}: probe.json, probe.png, probe.svg.")


def _row(cell: Cell, health: Health) -> tuple[str, ...]:
    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    between = "-" if cell.gain_low is None else f"{cell.gain_low:+.3f} to {cell.gain_high:+.3f}"
    return (
        f"{cell.learning_rate:g}",
        f"{cell.beta:g}",
        shown(cell.gain, "+.3f"),
        between,
        shown(cell.accuracy, ".2f"),
        shown(cell.winner_rise, "+.0%"),
        shown(cell.norm_ratio, ".2f"),
        shown(cell.loss, ".3g"),
        "; ".join(health.trouble(cell)),
    )
