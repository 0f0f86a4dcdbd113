"""The pipeline from clips to rewards of a model: quarantine, resume, and no reward at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiny_videoreward import tiny_network
from vr_pipeline import schemas
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.pipelines.reward_scoring.nodes import collect_rewards, describe_reward, plan_scores
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.rewards.videoreward.model import VideoReward
from vr_pipeline.video.write import write_video

NONE = RewardModelParameters.model_validate({"type": None})


@pytest.fixture
def clips(tmp_path: Path) -> tuple[dict[str, Path], pd.DataFrame]:
    """Six clips of three prompts; one does not decode, one was never made."""
    folder, random, rows = tmp_path / "clips", np.random.default_rng(0), []
    for number in range(6):
        path = folder / f"v{number}.mp4"
        if number < 4:
            write_video(path, random.integers(0, 255, (4, 32, 32, 3)).astype(np.uint8), fps=4)
        elif number == 4:
            path.write_bytes(b"\x00\x01 no video")
        rows.append(
            {"video_id": f"v{number}", "prompt_id": f"p{number % 3}", "prompt": f"prompt {number % 3}"}
            | {"sample_index": number // 3, "seed": 0, "generator": "test", "path": path.name, "num_frames": 4}
            | {"fps": 4.0, "height": 32, "width": 32, "sha256": f"hash{number}", "policy": "original"}
            | {"status": "failed" if number == 5 else "ok", "error": "no memory" if number == 5 else ""}
        )
    return {path.name: path for path in folder.iterdir()}, schemas.VideoIndex.validate(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> RewardModelParameters:
    folder = tmp_path_factory.mktemp("reward")
    tiny_network().save(folder)
    return RewardModelParameters.model_validate(
        {"type": "videoreward", "path": str(folder), "device": "cpu", "threads": 1, "clips_per_item": 1}
    )


def test_a_kill_loses_one_group_and_bad_clips_are_set_aside(
    clips: Any, reward: RewardModelParameters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index = clips
    place = {"format": {"type": "table"}}
    looked: list[list[str]] = []
    look = VideoReward.look

    def killed(self: VideoReward, loaded: Any, shown: Any) -> Any:
        looked.append([clip.video_id for clip in shown])
        if len(looked) == 3:
            raise KeyboardInterrupt
        return look(self, loaded, shown)

    monkeypatch.setattr(VideoReward, "look", killed)
    shards = ManifestFolderDataset(path=str(tmp_path / "shards"), **place)
    with pytest.raises(KeyboardInterrupt):
        shards.save(plan_scores(folder, index, reward))
    shards = ManifestFolderDataset(path=str(tmp_path / "shards"), **place)
    shards.save(plan_scores(folder, index, reward))
    # Two clips were kept; the one that was killed and the last one are looked at. The broken one is never shown.
    assert looked == [["v0"], ["v3"], ["v1"], ["v1"], ["v2"]]
    rewards = schemas.EvaluationRewards.validate(collect_rewards(shards.load(), index, reward))
    assert sorted(rewards["video_id"]) == ["v0", "v1", "v2", "v3"]
    whole = ManifestFolderDataset(path=str(tmp_path / "whole"), **place)
    whole.save(plan_scores(folder, index, reward))
    pd.testing.assert_frame_equal(rewards, collect_rewards(whole.load(), index, reward))
    described = describe_reward(reward)
    assert [f"dim_{name}" for name in described["dimensions"]] == [c for c in rewards if c.startswith("dim_")]
    assert set(rewards["model"]) == {described["identity"]}
    count = len(looked)
    shards.save(plan_scores(folder, index, reward))
    assert len(looked) == count, "what is measured is not measured again"


def test_where_there_is_no_reward_the_table_is_empty(clips: Any, tmp_path: Path) -> None:
    folder, index = clips
    shards = ManifestFolderDataset(path=str(tmp_path / "shards"), format={"type": "table"})
    shards.save(plan_scores(folder, index, NONE))
    rewards = schemas.EvaluationRewards.validate(collect_rewards(shards.load(), index, NONE))
    assert rewards.empty
    assert describe_reward(NONE) == {"type": None}


def test_settings_of_a_reward_are_checked_before_any_node_runs(tmp_path: Path) -> None:
    def made(**settings: Any) -> RewardModelParameters:
        return RewardModelParameters.model_validate(settings)

    with pytest.raises(ValueError, match="unknown type of reward 'best'"):
        made(type="best")
    with pytest.raises(ValueError, match=r"clip_batch.*greater than or equal to 1"):
        made(type="videoreward", path="x", clip_batch=0)
    with pytest.raises(ValueError, match="there is no such setting"):
        made(type="videoreward", path="x", clip_bach=1)
    # What an environment below sets can be taken back.
    assert made(type="scores", path="x", device=None).given == {"type": "scores", "path": "x"}
