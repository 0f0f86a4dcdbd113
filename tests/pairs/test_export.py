"""Lists of pairs for other trainers."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from vr_pipeline.pairs.export import unified_reward_list, video_dpo_list, write_list


def test_lists_for_other_trainers(tmp_path: Path) -> None:
    pairs = pd.DataFrame({"winner_video_id": ["v1"], "loser_video_id": ["v2"], "margin": [0.5], "prompt_id": ["p"]})
    index = pd.DataFrame({"video_id": ["v1", "v2"], "path": ["1.mp4", "2.mp4"], "prompt": ["a cat", "a cat"]})
    expected = [{"video1": "1.mp4", "video2": "2.mp4", "frame_caption": "a cat", "score": 0.5}]
    assert video_dpo_list(pairs, index) == expected
    unified = unified_reward_list(pairs, index)
    assert unified == [{"id": 0, "caption": "a cat", "chosen": "1.mp4", "rejected": "2.mp4"}]
    write_list(unified, tmp_path / "deeper/list.json")
    assert json.loads((tmp_path / "deeper/list.json").read_text()) == unified
