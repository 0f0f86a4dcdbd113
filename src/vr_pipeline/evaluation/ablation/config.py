"""Parameters of the ablation, and its trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.training.config import DpoTrainingParameters, PreferenceTrainingParameters


class AblationParameters(Parameters):
    """Train with every combination of pair rule, objective and seed."""

    pair_rules: list[str] = Field(
        default=["dpo", "mpo"],
        min_length=1,
        description="Pair rules: keys of pair_selection.recipes, the baseline first.",
    )
    objectives: dict[str, dict[str, Any]] = Field(
        default={"diffusion_dpo": {"loss": "diffusion_dpo"}},
        min_length=1,
        description="Objectives by name, the baseline first, each with its changes of dpo_training.training.",
    )
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="Seeds of training.")
    match_numbers: bool = Field(
        True, description="Train all rules on equally many pairs, those with the largest margins."
    )
    training: dict[str, Any] = Field(
        default={}, description="Changes of dpo_training.training for all trainings, such as steps."
    )
    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["test"], min_length=1, description="Splits of the prompts on which policies are compared."
    )
    videos_per_prompt: int = Field(8, ge=1, description="Clips per policy and prompt.")
    seed: int = Field(10, description="Base seed of the clips; all policies get the same seeds.")
    title: str = Field("Ablation of pair rules and objectives", description="Heading of the page.")


class Training(NamedTuple):
    """One training of the ablation: pair rule, objective and seed."""

    pairs: str
    objective: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its policy."""
        return f"{self.pairs}.{self.objective}.seed{self.seed}"


def trainings_of(parameters: AblationParameters) -> list[Training]:
    """Return all trainings in the order of the parameters."""
    return [
        Training(rule, objective, seed)
        for rule in parameters.pair_rules
        for objective in parameters.objectives
        for seed in parameters.seeds
    ]


def settings_of(
    training: Training, dpo_training: DpoTrainingParameters, parameters: AblationParameters
) -> PreferenceTrainingParameters:
    """Return the settings of a training: the pipeline's, changed by the ablation's, then by the objective's.

    The policy is the last step, so that all trainings have the same number of steps.

    Raises:
        InputError: the settings are inconsistent.
    """
    layers: list[Mapping[str, Any]] = [
        parameters.training,
        parameters.objectives[training.objective],
        {"seed": training.seed, "checkpoint_every": 0},
    ]
    made = dpo_training.model_copy(update={"recipes": {}})
    try:
        for layer in layers:
            made = made.model_copy(update={"recipes": {training.name: dict(layer)}}).for_recipe(training.name)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(["ablation", "objectives", training.objective, *map(str, first["loc"])])
        raise InputError(
            f"the settings of training {training.name} are wrong: {first['msg']}", field=place, remedy="Correct them"
        ) from error
    return made.training
