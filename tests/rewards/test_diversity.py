"""Diversity of the clips of a prompt, against distances by hand."""

import numpy as np
import pandas as pd
import pytest

from report_inputs import ClipsInMemory
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.schemas import Rewards
from vr_pipeline.video.sampled import sample_clip


def folder_of(shades: dict[str, list[int]]) -> tuple[ClipsInMemory, pd.DataFrame]:
    """Plain clips of one shade each, by prompt."""
    folder, rows = ClipsInMemory(), []
    for prompt, values in shades.items():
        for number, shade in enumerate(values):
            name = f"{prompt}{number}"
            folder.clips[name] = np.full((5, 12, 20, 3), shade, np.uint8)
            rows.append((name, prompt, prompt, number, "ok", name, f"{shade:064d}"))
    columns = ["video_id", "prompt_id", "prompt", "sample_index", "status", "path", "sha256"]
    return folder, pd.DataFrame(rows, columns=columns)


def scored(shades: dict[str, list[int]]) -> pd.DataFrame:
    reward = load_reward_model({"type": "diversity"})
    folder, index = folder_of(shades)
    rows = index.to_dict("records")
    shown = [sample_clip(folder.clips[row["video_id"]], row["prompt"], reward.sampling(None)) for row in rows]
    measured = pd.concat(reward.look(None, shown), ignore_index=True).assign(video_id=index["video_id"])
    return Rewards.validate(reward.rewards(measured, index)).set_index("video_id")


def test_clips_are_compared_with_those_of_their_prompt():
    table = scored({"a": [0, 51, 204], "b": [255, 255]})
    assert table.loc["a0", "total"] == pytest.approx((0.2 + 0.8) / 2)
    assert table.loc["a1", "total"] == pytest.approx((0.2 + 0.6) / 2)
    assert table.loc["a2", "dim_nearest"] == pytest.approx(0.6)
    assert (table.loc[["b0", "b1"], ["total", "dim_nearest"]] == 0).all(axis=None)


def test_a_single_clip_has_no_diversity():
    with pytest.raises(InputError, match="prompt 'a' has one clip"):
        scored({"a": [3]})
