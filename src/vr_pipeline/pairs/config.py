"""Parameters of pair_selection."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.pairs.candidates import Limits
from vr_pipeline.pairs.rules import RULES
from vr_pipeline.video.fit import FitParameters


class PairRecipeParameters(Parameters):
    """Selection of pairs by a recipe."""

    reward: Literal["checklist", "reward_model"] | None = Field(
        None,
        description="rewards to compare; null: those of the pipeline, and others are rejected. mpo_dpo uses the "
        "checklist, videoreward_dpo the reward of reward_model",
    )
    rule: str = Field(description=f"rule of the pairs: {', '.join(RULES)}; see vr_pipeline.pairs.rules")
    min_margin: float = Field(0.0, ge=0, description="smallest difference of total rewards, in units of the reward")
    max_pairs_per_group: int | None = Field(
        1, ge=1, description="pairs kept per group (largest margin first); null keeps all"
    )

    @field_validator("rule")
    @classmethod
    def _is_a_rule(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"unknown rule; use one of {', '.join(RULES)}")
        return rule


class PairSelectionParameters(Parameters):
    """Selection of training pairs."""

    group_size: int | None = Field(
        None,
        ge=2,
        description="size of the blocks of sample_index that form a group; null: all clips of a prompt",
    )
    dominance_tolerance: float = Field(
        0.0,
        ge=0,
        description="largest deficit of the better clip in a dimension at which it still dominates, in units of the "
        "reward; 0 tolerates float noise only (correct for binary answers)",
    )
    match_numbers: bool = Field(
        False,
        description="keep the same number of pairs for each recipe (the smallest one), by largest margin",
    )
    recipes: dict[str, PairRecipeParameters] = Field(description="selection of pairs, by name of the recipe")

    def limits(self, recipe: str, max_pairs: int | None = None) -> Limits:
        """Return the limits of a recipe with at most ``max_pairs`` pairs in total."""
        own = self.recipes[recipe]
        return Limits(own.min_margin, own.max_pairs_per_group, self.group_size, self.dominance_tolerance, max_pairs)


class PairRankingParameters(Parameters):
    """Clips to compare in pairs, within the groups of pair_selection.group_size."""

    pairs: Literal["adjacent", "all", "random"] = Field(
        "adjacent",
        description="samples 0 and 1, 2 and 3, and so on; all pairs; or rounds with one random partner per clip",
    )
    number: int | None = Field(
        None, ge=1, description="comparisons per group, for 'random'; null: half its number of clips"
    )
    seed: int = Field(0, ge=0, description="seed of the random pairs")

    @model_validator(mode="after")
    def _number_of_random_pairs(self) -> Self:
        if self.number is not None and self.pairs != "random":
            raise ValueError(f"number needs pairs: random, not {self.pairs}")
        return self


class HeldOutParameters(Parameters):
    """Prompts of given pairs to hold out of training."""

    test_share: float = Field(0.1, gt=0, lt=1, description="Share of the prompts for comparing policies.")
    validation_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the prompts for measuring progress during training."
    )
    most: int = Field(32, ge=1, description="Largest number of prompts of either kind.")
    salt: str = Field("", description="Changes the division of the prompts.")


class GivenPairsParameters(Parameters):
    """The pipeline given_dpo, with existing pairs."""

    fit: FitParameters = Field(default_factory=FitParameters, description="Changes that make clips fit the generator.")
    held_out: HeldOutParameters = Field(
        default_factory=HeldOutParameters, description="Prompts to hold out of training."
    )
