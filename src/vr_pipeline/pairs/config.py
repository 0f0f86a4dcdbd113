"""Parameters of pair_selection."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from vr_pipeline.config import Parameters
from vr_pipeline.pairs.candidates import Limits
from vr_pipeline.pairs.rules import RULES
from vr_pipeline.video.fit import FitParameters


class PairRecipeParameters(Parameters):
    """How one recipe selects its pairs."""

    reward: Literal["checklist", "reward_model"] | None = Field(
        None,
        description="whose rewards are compared; null: those of the pipeline that runs. Others are rejected: "
        "mpo_dpo has those of the checklist, videoreward_dpo those of the reward that reward_model names",
    )
    rule: str = Field(description=f"which pairs are kept: {', '.join(RULES)}; see vr_pipeline.pairs.rules")
    min_margin: float = Field(0.0, ge=0, description="smallest difference of total rewards, in units of the reward")
    max_pairs_per_group: int | None = Field(
        1, ge=1, description="pairs kept in a group (largest margin first), number; null keeps all"
    )

    @field_validator("rule")
    @classmethod
    def _is_a_rule(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"there is no such rule; use one of {', '.join(RULES)}")
        return rule


class PairSelectionParameters(Parameters):
    """Which clips are paired for training."""

    group_size: int | None = Field(
        None,
        ge=2,
        description="clips with sample_index in the same block of this length form a group, number; null: all clips "
        "of a prompt",
    )
    dominance_tolerance: float = Field(
        0.0,
        ge=0,
        description="how far the better clip may be behind in a dimension and still dominate, in units of the reward; "
        "0 allows for float noise only (right for binary answers)",
    )
    match_numbers: bool = Field(
        False,
        description="keep of every recipe only as many pairs, of largest margin, as the recipe with the fewest has",
    )
    recipes: dict[str, PairRecipeParameters] = Field(description="how each recipe selects its pairs, by its name")

    def limits(self, recipe: str, max_pairs: int | None = None) -> Limits:
        """Return the limits of a recipe, with at most so many pairs in all."""
        own = self.recipes[recipe]
        return Limits(own.min_margin, own.max_pairs_per_group, self.group_size, self.dominance_tolerance, max_pairs)


class HeldOutParameters(Parameters):
    """Which prompts of given pairs are not trained on."""

    test_share: float = Field(0.1, gt=0, lt=1, description="Share of the prompts on which policies are compared.")
    validation_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the prompts whose pairs measure a training while it runs."
    )
    most: int = Field(32, ge=1, description="At most so many prompts for each of the two, number.")
    salt: str = Field("", description="Another text divides the prompts otherwise.")


class GivenPairsParameters(Parameters):
    """The pipeline given_dpo: pairs that people already have."""

    fit: FitParameters = Field(default_factory=FitParameters, description="How clips are made to fit the generator.")
    held_out: HeldOutParameters = Field(
        default_factory=HeldOutParameters, description="Which prompts are not trained on."
    )
