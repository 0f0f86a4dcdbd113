"""Comparisons as long work: once a pair, resumed to the same bytes, bad clips set aside, and each clip scored once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from tiny_unifiedreward import saved_reward
from tiny_videoreward import tiny_network
from vr_pipeline import schemas
from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.errors import InputError
from vr_pipeline.pairs.config import PairRankingParameters
from vr_pipeline.pairs.ranking_report import BY_ORDER, ranking_report
from vr_pipeline.pairs.schedule import scheduled_pairs
from vr_pipeline.rewards.comparing import collect_comparisons, plan_comparisons
from vr_pipeline.rewards.ranking import RewardRanker
from vr_pipeline.rewards.registry import load_reward_model, ranker_of
from vr_pipeline.rewards.videoreward.model import VideoReward
from vr_pipeline.video.sampled import SampledClip, Sampling
from vr_pipeline.video.write import write_video

SAID = ["p_a", "p_b", "p_tie", "position_bias", "better"]


@dataclass
class BrightnessRanker:
    """The brighter clip is better, and a little more so when it comes first; it takes no clip of one frame."""

    identity: str = "brightness"
    rejects: int = 1
    killed_at: int | None = None
    asked: list[tuple[tuple[str, ...], int]] = field(default_factory=list)
    orders: ClassVar[int] = 2

    def sampling(self) -> Sampling:
        return Sampling(2)

    def compare_group(
        self, clips: Mapping[str, SampledClip], pairs: Sequence[tuple[str, str]], prompt: str
    ) -> pd.DataFrame:
        self.asked.append((tuple(clips), len(pairs)))
        if len(self.asked) == self.killed_at:
            raise KeyboardInterrupt
        for name, clip in clips.items():
            if len(clip.frames) <= self.rejects:
                raise InputError(f"clip '{name}' has too few frames", remedy="Give more")
        light = {name: float(clip.frames.mean()) / 255 for name, clip in clips.items()}
        p_a = np.array([0.5 + 0.4 * np.sign(round(light[a] - light[b], 6)) for a, b in pairs])
        return pd.DataFrame(
            {
                "p_a": p_a,
                "p_b": 1 - p_a,
                "p_tie": 0.0,
                "position_bias": 0.05,
                "outside_mass": 0.01,
                "better": np.where(p_a > 0.5, "a", "b"),
            }
        )


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], pd.DataFrame]:
    """Three prompts of four clips, brighter by name; c2 is one frame, b3 does not decode, b1 was never made."""
    folder, rows = tmp_path_factory.mktemp("clips"), []
    for p, prompt in enumerate("abc"):
        for n in range(4):
            name = f"{prompt}{n}"
            random = np.random.default_rng(4 * p + n)
            frames = (random.integers(0, 40, (3, 32, 32, 3)) + 50 * n).astype(np.uint8)
            write_video(folder / f"{name}.mp4", frames[:1] if name == "c2" else frames, fps=4)
            rows.append(
                {"video_id": name, "prompt_id": prompt, "prompt": f"prompt {prompt}", "sample_index": n, "seed": 0}
                | {"generator": "test", "path": f"{name}.mp4", "num_frames": 3, "fps": 4.0, "height": 32, "width": 32}
                | {"sha256": f"hash{name}", "status": "failed" if name == "b1" else "ok", "error": ""}
            )
    (folder / "b3.mp4").write_bytes(b"\x00 no video")
    return {path.name: path for path in folder.iterdir()}, schemas.VideoIndex.validate(pd.DataFrame(rows))


def every_pair(index: pd.DataFrame) -> pd.DataFrame:
    return scheduled_pairs(index, PairRankingParameters(pairs="all"), None)


def shards(folder: Path) -> ManifestFolderDataset:
    return ManifestFolderDataset(path=str(folder), format={"type": "table"})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_kill_loses_one_prompt_and_resuming_leads_to_the_same_bytes(clips: Any, tmp_path: Path) -> None:
    folder, index = clips
    ranker, pairs = BrightnessRanker(rejects=0, killed_at=2), every_pair(index)
    store = shards(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        store.save(plan_comparisons(ranker, folder, index, pairs))
    assert not store.exists()
    store = shards(tmp_path / "killed")
    store.save(plan_comparisons(ranker, folder, index, pairs))
    # The first prompt is not compared again; the one at which the run was killed is. The broken clip is never shown.
    assert ranker.asked == [
        (("a0", "a1", "a2", "a3"), 6),
        (("b0", "b2"), 1),
        (("b0", "b2"), 1),
        (("c0", "c1", "c2", "c3"), 6),
    ]
    whole = shards(tmp_path / "whole")
    whole.save(plan_comparisons(BrightnessRanker(rejects=0), folder, index, pairs))
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    table = schemas.Comparisons.validate(collect_comparisons(store.load(), index))
    # Clips are brighter by name, so that the second of a pair is the better one.
    assert set(table["better"]) == {"b"}
    assert [f"{a}{b}" for a, b in zip(table["video_id_a"], table["video_id_b"], strict=True)] == [
        *("a0a1", "a0a2", "a0a3", "a1a2", "a1a3", "a2a3", "b0b2"),
        *("c0c1", "c0c2", "c0c3", "c1c2", "c1c3", "c2c3"),
    ]
    assert set(table["position_bias"]) == {0.05}
    assert set(table["ranker"]) == {"brightness"}
    records = store.load().records
    assert sorted(records["comparisons"]) == [3, 6, 6]
    assert records["requests"].sum() == 2 * len(pairs)
    assert records["clips"].sum() == 11


def test_only_what_changed_is_compared_again(clips: Any, tmp_path: Path) -> None:
    folder, index = clips
    ranker, store, pairs = BrightnessRanker(rejects=0), shards(tmp_path / "shards"), every_pair(index)
    store.save(plan_comparisons(ranker, folder, index, pairs))
    ranker.asked.clear()
    store.save(plan_comparisons(ranker, folder, index.sample(frac=1, random_state=0), pairs))
    assert not ranker.asked
    changed = index.assign(sha256=index["sha256"].where(index["video_id"] != "b0", "other"))
    store.save(plan_comparisons(ranker, folder, changed, pairs))
    assert ranker.asked == [(("b0", "b2"), 1)]
    ranker.asked.clear()
    store.save(plan_comparisons(ranker, folder, changed, pairs[pairs["video_id_a"] != "c0"]))
    assert ranker.asked == [(("c1", "c2", "c3"), 3)]
    ranker.asked.clear()
    ranker.identity = "another"
    store.save(plan_comparisons(ranker, folder, changed, pairs))
    assert len(ranker.asked) == 3


def test_pairs_of_a_bad_clip_are_set_aside_and_the_others_compared(
    clips: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, index = clips
    ranker, store = BrightnessRanker(), shards(tmp_path / "shards")
    store.save(plan_comparisons(ranker, folder, index, every_pair(index)))
    table = collect_comparisons(store.load(), index)
    left = set(table["video_id_a"]) | set(table["video_id_b"])
    assert left == {"a0", "a1", "a2", "a3", "b0", "b2", "c0", "c1", "c3"}
    assert len(table) == 6 + 1 + 3
    assert "5 of 15 comparisons failed" in caplog.text
    assert "c2' has too few frames" in caplog.text


def test_where_no_pair_can_be_compared_the_prompt_failed_and_is_tried_again(clips: Any, tmp_path: Path) -> None:
    folder, index = clips
    of_a = index[index["prompt_id"].isin(["a", "c"])]
    pairs = scheduled_pairs(of_a, PairRankingParameters(), None)
    pairs = pairs[(pairs["prompt_id"] == "a") | (pairs["video_id_b"] == "c3")]  # of c only the pair with one frame
    store = shards(tmp_path / "shards")
    store.save(plan_comparisons(BrightnessRanker(), folder, of_a, pairs))
    records = store.load().records
    assert sorted(records["status"]) == ["failed", "ok"]
    assert len(collect_comparisons(store.load(), of_a)) == 2
    ranker = BrightnessRanker(rejects=0)
    store.save(plan_comparisons(ranker, folder, of_a, pairs))
    assert ranker.asked == [(("c2", "c3"), 1)]
    assert len(collect_comparisons(store.load(), of_a)) == 3


def test_a_pair_of_a_clip_that_is_not_there_is_rejected(clips: Any) -> None:
    folder, index = clips
    pairs = pd.DataFrame({"prompt_id": ["b"], "video_id_a": ["b0"], "video_id_b": ["b1"]})
    with pytest.raises(InputError, match="clip 'b1' of a pair is not in the clip index"):
        plan_comparisons(BrightnessRanker(), folder, index, pairs)


def test_nothing_to_compare_is_an_empty_table(clips: Any, tmp_path: Path) -> None:
    folder, index = clips
    store = shards(tmp_path / "shards")
    store.save(plan_comparisons(BrightnessRanker(), folder, index, every_pair(index.iloc[:1])))
    assert schemas.Comparisons.validate(collect_comparisons(store.load(), index)).empty


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> VideoReward:
    folder = tmp_path_factory.mktemp("reward")
    tiny_network().save(folder)
    return VideoReward(folder)


@pytest.mark.parametrize("by_total", [False, True])
def test_a_reward_compares_a_group_as_it_compares_pairs_and_looks_at_each_clip_once(
    clips: Any, model: VideoReward, by_total: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, index = clips
    ranker = RewardRanker(model) if by_total else ranker_of(model)
    of_a = index[index["prompt_id"] == "a"]
    pairs = every_pair(of_a)
    sides = [[folder[f"{name}.mp4"] for name in pairs[f"video_id_{side}"]] for side in "ab"]
    expected = ranker.compare(*sides, ["prompt a"] * len(pairs))
    looked: list[str] = []
    look = VideoReward.look
    monkeypatch.setattr(
        VideoReward,
        "look",
        lambda self, loaded, shown: looked.extend(c.video_id for c in shown) or look(self, loaded, shown),
    )
    store = shards(tmp_path / "shards")
    store.save(plan_comparisons(ranker, folder, of_a, pairs))
    table = collect_comparisons(store.load(), of_a)
    assert looked == ["a0", "a1", "a2", "a3"]
    assert set(table["better"]) <= {"a", "b", "tie"}
    pd.testing.assert_frame_equal(table[SAID], expected[SAID], check_exact=False, atol=1e-5)
    assert store.load().records["requests"].tolist() == [4]
    if not by_total:
        assert (table["p_a"] + table["p_b"] + table["p_tie"]).to_numpy() == pytest.approx(1)
        assert {f"p_a_{name}" for name in model.dimensions} <= set(table)


def test_a_unified_reward_is_asked_in_both_orders_and_flips_are_counted(clips: Any, tmp_path: Path) -> None:
    folder, index = clips
    ranker = ranker_of(load_reward_model(saved_reward(tmp_path / "unified")))
    of_a = index[index["prompt_id"] == "a"].assign(prompt="red ball")
    store = shards(tmp_path / "shards")
    store.save(plan_comparisons(ranker, folder, of_a, every_pair(of_a)))
    table = schemas.Comparisons.validate(collect_comparisons(store.load(), of_a))
    first, second = (table[[f"{name}_{order}" for name in SAID[:3]]].to_numpy() for order in BY_ORDER)
    np.testing.assert_allclose(table[SAID[:3]].to_numpy(), (first + second) / 2, atol=1e-12)
    np.testing.assert_allclose(table["position_bias"], (first - second)[:, 0] / 2, atol=1e-12)
    report = ranking_report(table, store.load().records)
    assert report["order_flips"] == (first.argmax(axis=1) != second.argmax(axis=1)).mean()
    assert report["requests"] == 2 * len(table) == 12
    assert table["outside_mass"].between(0, 1).all()
