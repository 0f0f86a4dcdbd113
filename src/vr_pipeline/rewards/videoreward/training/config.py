"""Parameters of the training of a VideoReward."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from vr_pipeline.rewards.training.held_out import HeldOutParameters
from vr_pipeline.rewards.training.parameters import RewardTrainingParameters
from vr_pipeline.rewards.videoreward.settings import NetworkSettings, VideoRewardSettings
from vr_pipeline.vlm.config import JudgeParameters


class PreferenceRewardTrainingParameters(RewardTrainingParameters):
    """Parameters of preference_reward_training. A sample is a pair of clips of one prompt."""

    block: ClassVar[str] = "preference_reward_training"
    samples: ClassVar[str] = "pairs"

    start: JudgeParameters | None = Field(
        None, description="Vision-language model at the start, with a new head and special tokens."
    )
    network: NetworkSettings | None = Field(None, description="Dimensions, texts, head and pooling, with 'start' only.")
    start_reward: VideoRewardSettings | None = Field(
        None, description="VideoReward at the start, instead of 'start' and 'network'."
    )
    loss: Literal["bt", "btt", "regression"] = Field(
        "btt",
        description="bt: Bradley-Terry without ties; btt: Bradley-Terry with ties; regression: squared error of "
        "grades.",
    )
    theta: float = Field(5.0, gt=1, description="Width of ties of the loss btt, fixed or initial.")
    learn_theta: bool = Field(False, description="Also train the width of ties, above 1.")
    theta_learning_rate: float = Field(1e-2, gt=0, description="Peak learning rate of the width of ties.")
    grade_centre: float = Field(3.0, description="Subtracted from grades by the loss regression.")
    grade_range: tuple[float, float] = Field((1.0, 5.0), description="Lowest and highest possible grade.")
    keep_ties: bool = Field(
        True, description="Also train on pairs that are tied in every dimension, except with the loss bt."
    )
    token_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the special tokens' embeddings; null for learning_rate."
    )
    head_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the head; null for learning_rate."
    )
    held_out: HeldOutParameters = Field(default_factory=HeldOutParameters, description="Held-out pairs.")

    @model_validator(mode="after")
    def _consistent(self) -> PreferenceRewardTrainingParameters:
        if (self.start is None) == (self.start_reward is None):
            raise ValueError("give either 'start' (a vision-language model) or 'start_reward' (a reward's folder)")
        if (self.start is None) != (self.network is None):
            raise ValueError("give 'network' (dimensions and texts) with 'start' only; a reward has its own")
        if self.start is not None and self.start.quantisation != "none":
            raise ValueError("a quantised model cannot be trained: set quantisation of 'start' to none")
        self.check_whole_passes()
        if self.grade_range[0] >= self.grade_range[1]:
            raise ValueError("the first value of 'grade_range' must be below the second")
        return self
