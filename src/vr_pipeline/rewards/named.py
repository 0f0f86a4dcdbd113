"""The reward of a parameter block: its type in :data:`~vr_pipeline.rewards.registry.REWARDS` and its settings."""

from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.rewards.registry import RewardChoice, checked_settings, load_reward_model


class RewardModelParameters(RewardChoice):
    """A reward's type and its settings. Relative paths start from the project folder.

    Null removes a setting, so that an environment can undo what a lower one sets.
    """

    model_config = ConfigDict(extra="allow")

    type: str | None = Field(description="kind of reward: a key of vr_pipeline.rewards.registry.REWARDS; null: none")

    @property
    def given(self) -> dict[str, Any] | None:
        """Configuration for :func:`~vr_pipeline.rewards.registry.load_reward_model`; None for no reward."""
        if self.type is None:
            return None
        return {"type": self.type} | {name: value for name, value in self.settings.items() if value is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """All keys except the type."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _describes_a_reward(self) -> Self:
        if self.given is not None:
            try:
                checked_settings(self.given)
            except InputError as error:
                raise ValueError(str(error)) from error
        return self

    def model(self) -> RewardModel:
        """Load the reward.

        Raises:
            InputError: there is none, or its files are missing or damaged.
        """
        if self.given is None:
            raise InputError("no reward is set", remedy="Set a type in the parameters", field="reward_model.type")
        return load_reward_model(self.given)
