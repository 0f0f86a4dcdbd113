"""Parameters of the training of a UnifiedReward."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.engine.config import ScheduleName, with_default
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.preferences.criteria import OVERALL
from vr_pipeline.rewards.training.held_out import HeldOutParameters
from vr_pipeline.rewards.training.parameters import RewardTrainingParameters
from vr_pipeline.rewards.unifiedreward.settings import UnifiedRewardSettings
from vr_pipeline.rewards.unifiedreward.template import Task, UnifiedTemplate
from vr_pipeline.vlm.config import JudgeParameters


class UnifiedItemSources(Parameters):
    """How tables of human labels become items."""

    criterion: str = Field(OVERALL, description="Label of compared clips: a criterion, or the overall preference.")
    task: Task = Field("video_generation", description="Task of compared and graded clips.")
    grades: bool = Field(
        True,
        description="Also train scores on grades of compared clips (grade_a_<criterion>, grade_b_<criterion>).",
    )
    pairs_of_points: bool = Field(
        True, description="Also train on the pair of the best and worst graded clip or text of each prompt."
    )


class UnifiedRewardTrainingParameters(RewardTrainingParameters):
    """Parameters of unified_reward_training. A sample is an item: a pair, or a clip or text with a grade."""

    block: ClassVar[str] = "unified_reward_training"
    samples: ClassVar[str] = "items"

    start: JudgeParameters | None = Field(None, description="Vision-language model at the start, with 'template'.")
    template: str | UnifiedTemplate | None = Field(
        None,
        description="Template, with 'start' only: a YAML file, or the name of one in conf/templates.",
    )
    start_reward: UnifiedRewardSettings | None = Field(
        None, description="UnifiedReward at the start, instead of 'start' and 'template'."
    )
    task: Task | None = Field(None, description="Default task of the trained reward; null for the task of most items.")
    matrix_learning_rate: float | None = with_default(JudgeTrainingParameters, "matrix_learning_rate", None)
    new_words: tuple[str, ...] = Field(
        (),
        description="Words added to the tokenizer, such as words of the template that a word-level tokenizer lacks.",
    )
    source_weights: dict[str, float] = Field(
        default={},
        description="Times that items are shown per epoch, by source; 1 for other sources, 0 to exclude a source.",
    )
    lines: dict[str, str] = Field(
        default={},
        description="Dimension of the items -> dimension of the template, if they differ by more than case and white "
        "space.",
    )
    validation_items: int | None = Field(
        None,
        ge=1,
        description="Largest number of validation items per task and form, drawn by a hash; null for all.",
    )
    held_out: HeldOutParameters = Field(default_factory=HeldOutParameters, description="Held-out items.")
    learning_rate: float = with_default(RewardTrainingParameters, "learning_rate", 2.5e-6)
    schedule: ScheduleName = with_default(RewardTrainingParameters, "schedule", "cosine")

    @model_validator(mode="after")
    def _consistent(self) -> UnifiedRewardTrainingParameters:
        if (self.start is None) == (self.start_reward is None):
            raise ValueError("give either 'start' (a vision-language model) or 'start_reward' (a UnifiedReward)")
        if (self.start is None) != (self.template is None):
            raise ValueError("give 'template' with 'start' only; a UnifiedReward has its own")
        quantised = [one for one in (self.start, self.start_reward) if one is not None and one.quantisation != "none"]
        if quantised:
            raise ValueError("a quantised model cannot be trained: set its quantisation to none")
        self.check_whole_passes()
        if any(not 0 <= weight < float("inf") for weight in self.source_weights.values()):
            raise ValueError("'source_weights' must be finite numbers of 0 or more")
        return self
