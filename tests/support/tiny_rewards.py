"""A tiny pairwise reward's training: a random Qwen2-VL, clips in memory, labels that the clips determine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import tiny_judges
from vr_pipeline.identifiers import pair_id, prompt_id
from vr_pipeline.rewards.training.clips import ReadClip
from vr_pipeline.rewards.videoreward.training.config import PreferenceRewardTrainingParameters
from vr_pipeline.rewards.videoreward.training.task import TrainedReward, train_preference_reward
from vr_pipeline.video.sampled import SampledClip, Sampling, sample_clip

COLOURS = ("red", "blue", "black")
THINGS = ("ball", "ring", "picture", "colour")
PROMPTS = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
NETWORK = {
    "dimensions": [
        {"name": "visual", "rubric": "is the picture sharp"},
        {"name": "text", "rubric": "does it show", "sees_prompt": True},
    ],
    "prompt_text": ' " [[prompt]] " ',
}
OPTIONS: dict[str, Any] = {
    "network": NETWORK,
    "vision": "full",
    "language": "full",
    "steps": 6,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "checkpoint_every": 2,
    "threads": 1,
    "reader_threads": 1,
    "held_out": {"validation_share": 0.2, "test_share": 0.2, "bootstrap_samples": 20},
}


def write_model(folder: Path) -> dict[str, Any]:
    """Save the tiny model, and return the block that starts from it."""
    tiny_judges.qwen2_vl(tiny_judges.build_tokenizer()).save(folder)
    return {"family": "qwen2_vl", "path": str(folder), "device": "cpu"}


def parameters(start: dict[str, Any], /, **changes: Any) -> PreferenceRewardTrainingParameters:
    """Settings of a training of a second."""
    return PreferenceRewardTrainingParameters.model_validate({**OPTIONS, "start": start, **changes})


def frames_of(video_id: str) -> np.ndarray:
    """Frames of a clip 'PROMPT/BRIGHTNESS': brighter is better, and a channel is the prompt's colour."""
    prompt, _, level = video_id.partition("/")
    random = np.random.default_rng(len(video_id) + int(level))
    frames = random.integers(0, 40, ((2, 3)[int(level) % 2], 24, 24, 3)) + 40 * int(level)
    frames[..., COLOURS.index(prompt.split()[0])] += 40
    return frames.clip(0, 255).astype(np.uint8)


def read(video_id: str, sampling: Sampling) -> SampledClip:
    """Give a clip in memory."""
    return sample_clip(frames_of(video_id), "", sampling, video_id=video_id, fps=4.0)


def tables(prompts: list[str] | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Preferences and clips: four clips and three pairs a prompt; the last pair is a tie in one dimension."""
    rows, clips = [], []
    for number, prompt in enumerate(prompts or PROMPTS):
        names = [f"{prompt}/{level}" for level in range(4)]
        clips += names
        for at, (low, high) in enumerate(((0, 3), (1, 3), (2, 1))):
            first, second = (names[low], names[high]) if (number + at) % 2 else (names[high], names[low])
            better = "a" if int(first[-1]) > int(second[-1]) else "b"
            rows.append(
                {
                    "pair_id": pair_id(prompt_id(prompt), first, second),
                    "prompt": prompt,
                    "video_id_a": first,
                    "video_id_b": second,
                    "preference": better,
                    "annotator": "one",
                    "source": "made",
                    "preference_visual": "tie" if at == 2 else better,
                    # Some say nothing of the text.
                    "preference_text": None if (number + at) % 3 == 0 else better,
                    "grade_a_visual": 1.0 + int(first[-1]),
                    "grade_b_visual": 1.0 + int(second[-1]),
                }
            )
    index = pd.DataFrame({"video_id": clips, "path": clips, "sha256": clips, "status": "ok", "error": ""})
    return pd.DataFrame(rows), index


def train(
    start: dict[str, Any],
    /,
    *,
    given: tuple[pd.DataFrame, pd.DataFrame] | None = None,
    reading: ReadClip = read,
    observe: Any = None,
    **changes: Any,
) -> TrainedReward:
    """Train from the tiny model."""
    preferences, index = given or tables()
    return train_preference_reward(preferences, index, reading, parameters(start, **changes), observe=observe)


def weights(trained: TrainedReward) -> dict[str, np.ndarray]:
    """All weights by name."""
    own = {name: value.detach().numpy().copy() for name, value in trained.network.own_weights.items()}
    model = trained.network.family.model.state_dict()
    return own | {name: value.numpy().copy() for name, value in model.items()}
