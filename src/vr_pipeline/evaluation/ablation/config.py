"""Parameters of the ablation, and the trainings that they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError
from vr_pipeline.training.config import DpoTrainingParameters, PreferenceTrainingParameters


class AblationParameters(Parameters):
    """Every pair rule is trained on with every objective and seed."""

    pair_rules: list[str] = Field(
        default=["dpo", "mpo"],
        min_length=1,
        description="Whose pairs: keys of pair_selection.recipes, the baseline first.",
    )
    objectives: dict[str, dict[str, Any]] = Field(
        default={"diffusion_dpo": {"loss": "diffusion_dpo"}},
        min_length=1,
        description="Objectives by name, the baseline first, each with what it sets of dpo_training.training.",
    )
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="Seeds of training.")
    match_numbers: bool = Field(
        True, description="Train on as many pairs of each rule, of largest margin, as the rule with the fewest has."
    )
    training: dict[str, Any] = Field(
        default={}, description="What all trainings set otherwise than dpo_training.training, such as steps."
    )
    splits: list[Literal["train", "validation", "test"]] = Field(
        default=["test"], min_length=1, description="Splits of the prompts on which policies are compared."
    )
    videos_per_prompt: int = Field(8, ge=1, description="Clips of each policy for each prompt.")
    seed: int = Field(10, description="Base seed of the clips; all policies get the same seeds.")
    title: str = Field("Ablation of pair rules and objectives", description="Heading of the page.")


class Training(NamedTuple):
    """One training of the ablation.

    Attributes:
        pairs: the rule whose pairs it trains on.
        objective: name of the objective.
        seed: of the training.
    """

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
    """Return what a training trains with: the pipeline's settings, the ablation's over them, the objective's over both.

    Checkpoints are not compared: the last step is the policy, so that all have had as many steps.

    Raises:
        InputError: the settings do not fit together.
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
            f"the training {training.name} cannot be set up: {first['msg']}", field=place, remedy="correct the setting"
        ) from error
    return made.training
