"""Start of a training: a vision-language model with a template, or a UnifiedReward; identity of the training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.engine.config import CheckpointParameters
from vr_pipeline.identifiers import content_hash
from vr_pipeline.rewards.unifiedreward.model import UnifiedReward
from vr_pipeline.rewards.unifiedreward.template import UnifiedTemplate
from vr_pipeline.rewards.unifiedreward.template_files import load_template
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedRewardTrainingParameters
from vr_pipeline.rewards.unifiedreward.training.labelled import LabelledItems
from vr_pipeline.rewards.unifiedreward.training.vocabulary import add_words
from vr_pipeline.video.sampled import Sampling
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families.base import Family
from vr_pipeline.vlm.loading import judge_identity, load_family

_NO_PART_OF_IDENTITY: Any = {
    **dict.fromkeys(CheckpointParameters.model_fields, True),
    **dict.fromkeys(("memory_mb", "reader_threads", "template"), True),
    # The content of the model's folder counts, not its name.
    **{name: {"path", "device"} for name in ("start", "start_reward")},
}


@dataclass(frozen=True)
class Start:
    """Start of a training: parameters to load the model, and the template with the sampling of frames."""

    judge: JudgeParameters
    template: UnifiedTemplate

    @classmethod
    def of(cls, parameters: UnifiedRewardTrainingParameters) -> Start:
        """Return the start, without loading weights."""
        if parameters.start is not None:
            assert parameters.template is not None
            judge, template = parameters.start, load_template(parameters.template)
        else:
            assert parameters.start_reward is not None
            reward = UnifiedReward.from_settings(parameters.start_reward, Path())
            judge, template = reward.judge, reward.template
        frames = template.frames.model_copy(
            update={
                name: value
                for name in ("num_frames", "frames_per_second")
                if (value := getattr(judge, name)) is not None
            }
        )
        return cls(judge, template.model_copy(update={"frames": frames}))

    def load(self, parameters: UnifiedRewardTrainingParameters) -> Family:
        """Load the model, and add the new words to its tokenizer."""
        family: Family = load_family(self.judge)
        add_words(family, parameters.new_words, seed=parameters.seed)
        return family

    def sampling(self, family: Family) -> Sampling:
        """Return the sampling of the template, else of the model's folder."""
        frames, own = self.template.frames, family.settings
        given = frames.num_frames is not None or frames.frames_per_second is not None
        source = frames if given else own
        return Sampling(source.num_frames, source.frames_per_second)

    @property
    def identity(self) -> str:
        """Hash of the model's content and the template."""
        return content_hash("unified start", judge_identity(self.judge), self.template.identity)


def training_identity(
    items: LabelledItems, index: pd.DataFrame, start: Start, parameters: UnifiedRewardTrainingParameters
) -> str:
    """Hash what determines a training: settings, weights at the start, template, items and clips of both sides."""
    rows = pd.Series([*items.rows("train"), *items.rows("validation")], dtype="int64").to_numpy()
    contents = dict(zip(index["video_id"].astype(str), index["sha256"].astype(str), strict=True))
    return content_hash(
        "unified reward training",
        parameters.model_dump_json(exclude=_NO_PART_OF_IDENTITY),
        start.identity,
        *items.contents(rows),
        *(f"{name} {contents[name]}" for name in items.clips(rows)),
    )
