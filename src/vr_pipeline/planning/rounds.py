"""Rounds of online training as a plan sees them: each has settings of its own, as its training does."""

from __future__ import annotations

from dataclasses import replace

from vr_pipeline.pipelines.recipes import Recipe
from vr_pipeline.planning.settings import Settings
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.online import OnlineParameters, settings_of_round

STAGE = "online_round_"
"""Beginning of the names of stages that are rounds."""


def rounds(settings: Settings) -> list[Settings]:
    """Return the settings of every round of the system, in order; none for a system without rounds.

    Raises:
        InputError: the settings of the rounds are inconsistent.
    """
    return [_of_round(settings, int(stage.removeprefix(STAGE))) for stage in _stages(settings)]


def round_of(settings: Settings, stage: str) -> Settings:
    """Return the settings of the round of a stage."""
    return _of_round(settings, int(stage.removeprefix(STAGE)))


def made(settings: Settings) -> list[Settings]:
    """Return the settings by which clips to pair are made and judged: those of the rounds, or the given ones."""
    return rounds(settings) or [settings]


def trainings(settings: Settings) -> dict[str, tuple[DpoTrainingParameters, int]]:
    """Return parameters and number of judged checkpoints of the training of each policy."""
    of_policy = {recipe.name: one for one in made(settings) for recipe in one.system.recipes}
    return {name: (one.training.for_recipe(name), one.checkpoints(name)) for name, one in of_policy.items()}


def _stages(settings: Settings) -> list[str]:
    return [stage for stage in settings.system.stages if stage.startswith(STAGE)]


def _of_round(settings: Settings, number: int) -> Settings:
    online = OnlineParameters.model_validate(settings.parameters["online_mpo"])
    name = f"round_{number}"
    generation = settings.generation.model_copy(
        update={"splits": list(online.splits), "videos_per_prompt": online.videos_per_prompt}
    )
    found = replace(
        settings,
        system=settings.system._replace(recipes=(Recipe(name, title=f"Round {number}"),), stages=()),
        most_prompts=online.prompts_per_round,
        # The first round has no older pairs.
        replay=online.replay if number > 1 else 0.0,
    )
    object.__setattr__(found, "generation", generation)
    object.__setattr__(found, "training", settings_of_round(settings.training, online, number))
    return found
