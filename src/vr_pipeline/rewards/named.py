"""The reward that a parameter block names: one of :data:`~vr_pipeline.rewards.registry.REWARDS`, with its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import ConfigDict, Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    from vr_pipeline.rewards.contract import RewardModel


class RewardModelParameters(Parameters):
    """A reward by its type; its other keys are the settings of that type. Relative paths start from the project.

    A setting of null counts as not given, so that an environment can take back what the one below it sets.
    """

    model_config = ConfigDict(extra="allow")

    type: str | None = Field(description="kind of reward: a key of vr_pipeline.rewards.registry.REWARDS; null: none")

    @property
    def given(self) -> dict[str, Any] | None:
        """The configuration as :func:`~vr_pipeline.rewards.registry.load_reward_model` takes it; None for no reward."""
        if self.type is None:
            return None
        return {"type": self.type} | {name: value for name, value in self.settings.items() if value is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """What stands beside the type."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _describes_a_reward(self) -> Self:
        from vr_pipeline.rewards.registry import checked_settings

        if self.given is not None:
            try:
                checked_settings(self.given)
            except InputError as error:
                raise ValueError(str(error)) from error
        return self

    def model(self) -> RewardModel:
        """Load the reward.

        Raises:
            InputError: there is none, or its files are not there or are not whole.
        """
        from vr_pipeline.rewards.registry import load_reward_model

        if self.given is None:
            raise InputError("there is no reward", remedy="Name one in the parameters", field="reward_model.type")
        return load_reward_model(self.given)
