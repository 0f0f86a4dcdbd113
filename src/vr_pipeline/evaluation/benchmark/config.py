"""Parameters of reward_benchmark."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters

Baseline = Literal["always_first", "always_tie"]


class BenchmarkReward(Parameters):
    """A reward or baseline of the benchmark."""

    reward: dict[str, Any] | None = Field(
        None, description="Type and settings (docs/rewards.md); relative paths start from the project."
    )
    path: str | None = Field(None, description="Folder or file of a packaged reward, instead of 'reward'.")
    baseline: Baseline | None = Field(None, description="A constant answer, instead of a reward.")
    compare: bool = Field(
        False, description="Whether the model compares both clips in both orders, instead of scoring each."
    )
    criteria: dict[str, str] = Field(
        default_factory=dict,
        description="Criterion of the preferences -> dimension of the reward, if their names differ.",
    )

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if sum(one is not None for one in (self.reward, self.path, self.baseline)) != 1:
            raise ValueError("give exactly one of reward, path and baseline")
        if self.baseline is not None and self.compare:
            raise ValueError("a baseline cannot compare")
        return self


class RewardBenchmarkParameters(Parameters):
    """Parameters of reward_benchmark."""

    given: dict[str, BenchmarkReward | None] = Field(
        alias="rewards", description="Rewards by name; null removes one of the base configuration."
    )
    validation_share: float = Field(
        0.2, gt=0, lt=1, description="Share of the prompts of each source used to choose tie thresholds."
    )
    seed: int = Field(0, description="Seed of the split by prompt and of the bootstrap.")
    bootstrap_samples: int = Field(500, ge=0, description="Bootstrap replicates; 0 for no intervals.")
    smallest_group: int = Field(
        20, ge=1, description="Smallest number of pairs of a group (two generators, or a range of clip lengths)."
    )
    title: str = Field("Rewards against people", description="Heading of the page.")

    @property
    def rewards(self) -> dict[str, BenchmarkReward]:
        """Rewards by name."""
        return {name: one for name, one in self.given.items() if one is not None}

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if not self.rewards:
            raise ValueError("give at least one reward")
        return self
