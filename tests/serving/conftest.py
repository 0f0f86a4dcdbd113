"""The fixtures of :mod:`tests.rewards`, a reward of a random tiny judge, and clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.rewards.conftest import *  # noqa: F403

from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.judges.training.config import TinyJudgeParameters
from vr_pipeline.judges.training.tiny import create_tiny_judge, words_of
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.video.write import write_video
from vr_pipeline.vlm.config import JudgeParameters

QUESTIONS = [
    {"id": "bright", "text": "is it bright ?"},
    {"id": "as_said", "text": 'is it as in " [[prompt]] " ?'},
    {"id": "gated", "text": "is it very bright ?", "gate": "bright"},
]
DIMENSIONS = [
    {"name": "light", "sub_dimensions": [{"name": "light", "questions": QUESTIONS[::2]}]},
    {"name": "alignment", "sub_dimensions": [{"name": "alignment", "questions": QUESTIONS[1:2]}]},
]


@pytest.fixture(scope="session")
def tiny_reward(tmp_path_factory: pytest.TempPathFactory) -> ChecklistReward:
    checklist = checklist_from_mapping({"name": "light", "modality": "video", "dimensions": DIMENSIONS})
    parameters = TinyJudgeParameters(initial_std=0.4, world="a made-up world")
    folder = tmp_path_factory.mktemp("judge")
    create_tiny_judge(parameters, words_of([str(q["text"]) for q in QUESTIONS]), seed=1).save(folder)
    weights = RewardWeights(("bright", "gated", "as_said"), np.array([1.0, 2.0, 4.0]), checklist_hash=checklist.hash)
    return ChecklistReward(checklist, weights, JudgeParameters(family="qwen2_vl", path=str(folder), clip_batch=4))


@pytest.fixture(scope="session")
def served_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips and a picture, with one link that leads out of it and one that stays within."""
    folder = tmp_path_factory.mktemp("served") / "clips"
    random = np.random.default_rng(0)
    for name, low, high in (("dark", 0, 90), ("bright", 150, 255), ("wide", 60, 200)):
        frames = random.integers(low, high, (8, 32, 48 if name == "wide" else 32, 3)).astype(np.uint8)
        write_video(folder / f"{name}.mp4", frames, fps=8)
    Image.fromarray(random.integers(0, 255, (40, 20, 3)).astype(np.uint8)).save(folder / "picture.png")
    (folder / "text.mp4").write_text("no video", encoding="utf-8")
    outside = folder.parent / "outside.mp4"
    outside.write_bytes((folder / "dark.mp4").read_bytes())
    (folder / "out.mp4").symlink_to(outside)
    (folder / "within.mp4").symlink_to(folder / "dark.mp4")
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    return folder
