"""Given pairs: votes to winners, clips to a stated rule, prompts to splits, and nothing lost without a reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.pairs.config import HeldOutParameters
from vr_pipeline.pairs.given import (
    decide_pairs,
    divide_prompts,
    examine_clips,
    fitted_clips,
    keep_usable,
    pairs_report,
    training_table,
)
from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.schemas import FilteredPrompts, GivenClips, GivenPairs, TrainingPairs
from vr_pipeline.video.fit import FitParameters
from vr_pipeline.video.write import write_video

GENERATOR = GeneratorParameters(family="micro_world", path="nowhere", num_frames=4, height=16, width=16, fps=8)


def table(tmp_path: Path, *rows: str) -> pd.DataFrame:
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(["prompt,video_path_a,video_path_b,preference,annotator", *rows]))
    return read_preferences(path)


def clip(path: Path, seed: int, *, frames: int = 4, height: int = 16, width: int = 16, fps: float = 8) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    write_video(path, pixels, fps=fps, codec="libx264rgb", crf=0)


def test_the_majority_decides_and_contradictions_are_told(tmp_path: Path) -> None:
    pairs = decide_pairs(
        table(
            tmp_path,
            *("a cat,1.mp4,2.mp4,a,x", "a cat,2.mp4,1.mp4,b,y", "a cat,1.mp4,2.mp4,b,z"),  # 1 has two of three votes
            *("a dog,3.mp4,4.mp4,b,x", "a dog,3.mp4,4.mp4,a,y"),
            "a cow,5.mp4,6.mp4,tie,x",
        )
    ).set_index("prompt")
    GivenPairs.validate(pairs.reset_index())
    assert pairs["status"].to_dict() == {"a cat": "kept", "a dog": "tie", "a cow": "tie"}
    assert pairs.loc["a cat", ["votes", "contradicted"]].tolist() == [3, True]
    assert pairs.loc["a cat", "winner_share"] == pytest.approx(2 / 3)
    assert "contradict" in pairs.loc["a dog", "reason"]
    assert "no difference" in pairs.loc["a cow", "reason"]


def test_labels_by_segment_reach_the_training_table_as_the_clips_are_cut(tmp_path: Path) -> None:
    clip(tmp_path / "long.mp4", 1, frames=8)
    clip(tmp_path / "other.mp4", 2, frames=8)
    file = tmp_path / "pairs.csv"
    file.write_text('prompt,video_path_a,video_path_b,preference,segments\ncat,long.mp4,other.mp4,b,"a,a,b,tie"\n')
    preferences = read_preferences(file)
    folder = {path.name: path for path in tmp_path.glob("*.mp4")}
    decided = decide_pairs(preferences)
    for window, expected in (("first", "b:2,b:2"), ("centre", "b:2,a:2")):
        parameters = FitParameters(window=window)
        clips = examine_clips(preferences, decided, folder, GENERATOR, parameters)
        GivenClips.validate(clips)
        pairs = keep_usable(decided, clips)
        GivenPairs.validate(pairs)
        training = training_table(pairs, clips, divide_prompts(pairs, HeldOutParameters()), "given", "held_out")
        TrainingPairs.validate(training)
        # The second clip won; of eight frames four are shown, two for every part.
        assert training["segments"].tolist() == [expected]


@pytest.fixture
def world(tmp_path: Path) -> tuple[pd.DataFrame, dict[str, Path]]:
    """Six pairs, of which three have a clip that cannot be used."""
    clip(tmp_path / "good.mp4", 1)
    clip(tmp_path / "wide.mp4", 2, frames=12, height=32, width=48, fps=24)
    clip(tmp_path / "short.mp4", 3, frames=2)
    clip(tmp_path / "other.mp4", 4)
    (tmp_path / "copy.mp4").write_bytes((tmp_path / "good.mp4").read_bytes())
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:300])
    names = ("wide", "short", "gone", "broken", "copy", "other")
    preferences = table(tmp_path, *(f"prompt {name},good.mp4,{name}.mp4,a,x" for name in names))
    return preferences, {path.name: path for path in tmp_path.glob("*.mp4")}


def test_every_clip_has_its_rule_or_its_reason(world: tuple[pd.DataFrame, dict[str, Path]]) -> None:
    preferences, folder = world
    decided = decide_pairs(preferences)
    clips = examine_clips(preferences, decided, folder, GENERATOR, FitParameters())
    GivenClips.validate(clips)
    by_file = clips.drop_duplicates("path").set_index("path")
    assert by_file.loc["good.mp4", ["status", "rule"]].tolist() == ["ok", ""]
    assert by_file.loc["wide.mp4", "rule"] == "24 to 8 frames a second; reduced from 32 x 48 to 16 x 24; cut to 16 x 16"
    assert by_file.loc["wide.mp4", ["num_frames", "height", "fitted_num_frames", "fitted_height"]].tolist() == [
        *(12, 32),
        *(4, 16),
    ]
    assert "too short: it has 2 frames" in by_file.loc["short.mp4", "error"]
    assert "no such file" in by_file.loc["gone.mp4", "error"]
    assert by_file.loc["broken.mp4", "status"] == "failed"
    longer = examine_clips(preferences, decided, folder, GENERATOR, FitParameters(too_short="repeat_last"))
    assert longer.set_index("path").loc["short.mp4", "rule"] == "last frame repeated 2 times"
    assert set(clips["content"]).isdisjoint(longer["content"]), "another rule is another content"
    usable = fitted_clips(clips, folder, GENERATOR, FitParameters())
    for video in clips.loc[clips["status"] == "ok", "video_id"]:
        assert usable.load(video).shape == (4, 16, 16, 3)
    assert clips.loc[clips["path"] == "gone.mp4", "video_id"].iloc[0] not in usable


def test_no_pair_is_lost_without_a_reason(
    world: tuple[pd.DataFrame, dict[str, Path]], caplog: pytest.LogCaptureFixture
) -> None:
    preferences, folder = world
    decided = decide_pairs(preferences)
    clips = examine_clips(preferences, decided, folder, GENERATOR, FitParameters())
    pairs = keep_usable(decided, clips)
    GivenPairs.validate(pairs)
    fate = dict(zip(pairs["prompt"].str.removeprefix("prompt "), pairs["status"], strict=True))
    failed = dict.fromkeys(("short", "gone", "broken"), "clip_failed")
    assert fate == {"wide": "kept", "other": "kept", "copy": "same_clip", **failed}
    assert all(pairs.loc[pairs["status"] != "kept", "reason"] != "")
    prompts = divide_prompts(pairs, HeldOutParameters())
    FilteredPrompts.validate(prompts)
    assert sorted(prompts["split"]) == ["test", "train"]
    assert "2 prompt(s)" in caplog.text
    training = training_table(pairs, clips, prompts, "given", "held_out")
    TrainingPairs.validate(training)
    assert training["recipe"].tolist() == ["given"]
    report = pairs_report(pairs, clips, prompts)
    assert (
        report["pairs"]["given"]
        == 6
        == sum(report["pairs"][name] for name in ("kept", "tie", "same_clip", "clip_failed"))
    )
    assert len(report["set_aside"]) == 4
    assert report["clips"]["changes"] == {
        "cut at the edges": 1,
        "reduced": 1,
        "shown at another rate": 1,
        "taken as they are": report["clips"]["given"] - report["clips"]["failed"] - 1,
    }
    lost = pairs[pairs["status"] != "kept"].assign(status="kept", reason="")
    with pytest.raises(InputError, match="none of 4 given pairs is usable"):
        keep_usable(lost, clips)


@given(st.integers(1, 300), st.floats(0.01, 0.9), st.floats(0, 0.9), st.integers(1, 40))
def test_prompts_are_divided_so_that_something_is_left_to_train_on(
    count: int, test: float, validation: float, most: int
) -> None:
    pairs = pd.DataFrame({"prompt_id": [f"p{i}" for i in range(count)], "prompt": "x", "status": "kept"})
    parameters = HeldOutParameters(test_share=test, validation_share=validation, most=most)
    splits = divide_prompts(pairs, parameters)["split"].value_counts()
    assert splits.sum() == count
    assert 1 <= splits["test"] <= most
    assert splits.get("validation", 0) <= most
    if count > 1:
        assert splits["train"] >= 1
    if count < 5:
        assert splits.get("validation", 0) <= max(0, round(count * validation))


def test_a_single_prompt_is_trained_on_and_compared_on(tmp_path: Path) -> None:
    for name in (1, 2):
        clip(tmp_path / f"{name}.mp4", name)
    preferences = table(tmp_path, "a cat,1.mp4,2.mp4,a,x")
    decided = decide_pairs(preferences)
    clips = examine_clips(preferences, decided, {p.name: p for p in tmp_path.glob("*.mp4")}, GENERATOR, FitParameters())
    pairs = keep_usable(decided, clips)
    prompts = divide_prompts(pairs, HeldOutParameters())
    assert prompts["split"].tolist() == ["test"]
    assert training_table(pairs, clips, prompts, "given", "held_out")["recipe"].tolist() == ["given"]
