"""A tiny UnifiedReward's training: a random Qwen2-VL, clips in memory, labels that the clips determine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiny_rewards import THINGS, frames_of
from tiny_unifiedreward import LINES, toy_family, toy_template
from vr_pipeline.identifiers import pair_id, prompt_id
from vr_pipeline.rewards.training.clips import ReadClip
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedRewardTrainingParameters
from vr_pipeline.rewards.unifiedreward.training.items import (
    items_from_preferences,
    items_from_ratings,
    items_of,
    mixed,
)
from vr_pipeline.rewards.unifiedreward.training.task import train_unified_reward
from vr_pipeline.rewards.unifiedreward.training.trained import TrainedUnifiedReward
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip

PROMPTS = [f"{colour} {thing}" for colour in ("red", "blue", "black") for thing in THINGS]
OPTIONS: dict[str, Any] = {
    "template": toy_template().model_dump(mode="json"),
    "vision": "full",
    "language": "full",
    "steps": 6,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "schedule": "constant",
    "checkpoint_every": 2,
    "threads": 1,
    "reader_threads": 1,
    "held_out": {"validation_share": 0.2, "test_share": 0.2, "bootstrap_samples": 20},
}


def write_model(folder: Path) -> dict[str, Any]:
    """Save the tiny model, and return the block that starts from it."""
    toy_family().save(folder)
    return {"family": "qwen2_vl", "path": str(folder), "device": "cpu"}


def parameters(start: dict[str, Any], /, **changes: Any) -> UnifiedRewardTrainingParameters:
    """Settings of a training of a second."""
    return UnifiedRewardTrainingParameters.model_validate({**OPTIONS, "start": start, **changes})


def read(video_id: str, sampling: Sampling) -> SampledClip:
    """Give a clip in memory; of 'PROMPT/BRIGHTNESS' the brighter is better."""
    return sample_clip(frames_of(video_id), "", sampling, video_id=video_id, fps=4.0)


def preferences(prompts: list[str] = PROMPTS) -> pd.DataFrame:
    """Three pairs a prompt; the last is a tie of the prompts in turn."""
    rows = []
    for number, prompt in enumerate(prompts):
        for at, (low, high) in enumerate(((0, 3), (1, 3), (2, 1))):
            ends = [f"{prompt}/{level}" for level in ((low, high) if (number + at) % 2 else (high, low))]
            better = "a" if int(ends[0][-1]) > int(ends[1][-1]) else "b"
            known = {"pair_id": pair_id(prompt_id(prompt), *ends), "prompt": prompt, "annotator": "one"}
            clips = dict(zip(("video_id_a", "video_id_b"), ends, strict=True))
            said = "tie" if at == 2 and number % 3 == 0 else better
            rows.append({**known, **clips, "preference": said, "source": "made"})
    return pd.DataFrame(rows)


def ratings(prompts: list[str] = PROMPTS) -> pd.DataFrame:
    """Grades of four clips of each prompt in both lines of the template, which stand in one answer."""
    names = [line["dimension"] for line in LINES]
    rows = [
        {"prompt": prompt, "video_id": f"{prompt}/{level}", "dimension": name, "grade": 1 + level * (3 - 2 * at)}
        for prompt in prompts
        for level in range(4)
        for at, name in enumerate(names)
    ]
    return pd.DataFrame(rows).assign(source="rated")


def described(prompts: list[str] = PROMPTS) -> pd.DataFrame:
    """Two texts about a clip of each prompt, compared; and one of them graded in two dimensions."""
    rows = [
        {
            "prompt": "question",
            "video_id_a": f"{prompt}/3",
            "response_a": prompt if at % 2 else "picture",
            "response_b": "picture" if at % 2 else prompt,
            "answer": "first" if at % 2 else "second",
        }
        for at, prompt in enumerate(prompts)
    ]
    pairs = items_of(pd.DataFrame(rows), task="video_understanding", form="pair", source="described")
    graded = pd.DataFrame(
        [
            {"prompt": "question", "video_id": f"{prompt}/3", "response": prompt, "dimension": name, "grade": grade}
            for prompt in prompts
            for name, grade in (("clear", 4), ("sharp", 2))
        ]
    )
    return mixed([pairs, items_from_ratings(graded, task="video_understanding", source="described", pairs=False)])


def tables(prompts: list[str] = PROMPTS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Items of all kinds, and the clips."""
    rated = items_from_ratings(ratings(prompts), pairs=False)
    items = mixed([items_from_preferences(preferences(prompts)), rated, described(prompts)])
    names = [f"{prompt}/{level}" for prompt in prompts for level in range(4)]
    index = pd.DataFrame({"video_id": names, "path": names, "sha256": names, "status": "ok", "error": ""})
    return items, index.assign(prompt=[name.partition("/")[0] for name in names])


def train(
    start: dict[str, Any],
    /,
    *,
    given: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    reading: ReadClip = read,
    observe: Any = None,
    **changes: Any,
) -> TrainedUnifiedReward:
    """Train from the tiny model."""
    items, index = given or tables()
    return train_unified_reward(items, index, reading, parameters(start, **changes), observe=observe)


def weights(trained: TrainedUnifiedReward) -> dict[str, np.ndarray]:
    """All weights by name."""
    return {name: value.numpy().copy() for name, value in trained.family.model.state_dict().items()}
