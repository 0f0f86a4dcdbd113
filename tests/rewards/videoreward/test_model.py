"""VideoReward as a reward: from files and folders of clips, with its calibration, and what it cannot score."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import vr_pipeline as vr
from tiny_videoreward import DIMENSIONS, PROMPTS, some_clips, tiny_network
from vr_pipeline.errors import InputError
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.rewards.videoreward.calibration import calibrate, probabilities, seen_clips
from vr_pipeline.rewards.videoreward.model import VideoReward
from vr_pipeline.rewards.videoreward.network import VideoRewardNetwork
from vr_pipeline.schemas import Rewards
from vr_pipeline.video.write import write_video

NAMES = [one["name"] for one in DIMENSIONS]
SCORES = [f"dim_{name}" for name in NAMES]
FREE = ["dim_visual", "dim_motion"]
FPS = 2.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder: trained, it says, on clips of 1.5 to 4 s at 2 frames a second."""
    place = tmp_path_factory.mktemp("videoreward")
    random = np.random.default_rng(0)
    raw = random.normal([3.0, 1.0, -2.0, 0.5], [2.0, 1.0, 0.5, 1.0], (60, 4))
    pairs = random.integers(0, 60, (90, 2))
    labels = {"total": random.choice(["a", "b", "tie"], 90).tolist()}
    seen = seen_clips([(FPS, 32 * 48, 4.0), (FPS, 56 * 30, 1.5)])
    tiny_network().save(place, calibrate(raw, NAMES, pairs, labels, seen=seen))
    return place


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three clips of different length and size."""
    place = tmp_path_factory.mktemp("clips")
    paths = [place / f"{name}.mp4" for name in "abc"]
    for path, frames in zip(paths, some_clips(), strict=True):
        write_video(path, frames, fps=FPS)
    return paths


def index_of(files: list[Path], prompts: list[str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "video_id": [path.name for path in files],
            "prompt_id": prompts,
            "prompt": prompts,
            "sample_index": 0,
            "path": [path.name for path in files],
            "sha256": "1",
            "status": "ok",
        }
    )


def by_folder(model: VideoReward, files: list[Path], prompts: list[str], place: Path) -> pd.DataFrame:
    """Rewards by way of a folder of stored measurements, as pipelines have them."""
    index = index_of(files, prompts)
    items = fill_folder(place, {"type": "table"}, model.measure({path.name: path for path in files}, index))
    return Rewards.validate(model.rewards(model.collect(items, index), index)).set_index("video_id")


def test_a_clip_has_one_reward_whoever_asks(folder: Path, files: list[Path], tmp_path: Path) -> None:
    model = vr.load_reward_model(folder)
    table = model.score(files, PROMPTS)
    stored = by_folder(model, files, PROMPTS, tmp_path / "stored")
    same = stored.loc[[path.name for path in files]].reset_index(drop=True)
    columns = ["total", *SCORES, "outside_training", "model", "sampling"]
    pd.testing.assert_frame_equal(same[columns], table)
    for row, (path, prompt) in enumerate(zip(files, PROMPTS, strict=True)):
        alone = model.score_clip(path, prompt)
        assert alone[SCORES].iloc[0].tolist() == table[SCORES].iloc[row].tolist()
    assert set(table["model"]) == {model.identity}
    assert set(table["sampling"]) == {"2/s, at most 768"}
    in_memory = model.score([vr.read_frames(path) for path in files], PROMPTS, fps=FPS)
    pd.testing.assert_frame_equal(in_memory, table)


def test_dimensions_before_the_prompt_are_the_same_for_every_prompt(
    folder: Path, files: list[Path], tmp_path: Path
) -> None:
    model = vr.load_reward_model(folder)
    other = ["<|visual_reward|> <|video_pad|>", "ball " * 40, ""]
    first, second = model.score(files, PROMPTS), model.score(files, other)
    assert first[FREE].equals(second[FREE])
    assert not np.isclose(first["dim_text"], second["dim_text"]).any()
    # Other prompts make other groups of clips, which are other batches.
    stored = by_folder(model, files, ["p", "p", "q"], tmp_path / "stored")
    assert stored[FREE].to_numpy().tolist() == first[FREE].to_numpy().tolist()


def test_scores_are_standardised_and_averaged_or_added_up(folder: Path, files: list[Path]) -> None:
    model = VideoReward(folder)
    calibration = model.calibration
    assert calibration is not None
    measured = pd.concat([model.measure_clip(shown(model, path)) for path in files])
    for name in NAMES:
        expected = (measured[f"raw_{name}"] - calibration.mean[name]) / calibration.deviation[name]
        np.testing.assert_allclose(measured[f"dim_{name}"], expected)
    np.testing.assert_allclose(measured["total"], measured[SCORES].mean(axis=1))
    added = vr.load_reward_model({"type": "videoreward", "path": str(folder), "overall": "sum"})
    np.testing.assert_allclose(added.score(files, [""] * 3)["total"], measured[SCORES].sum(axis=1))
    assert added.identity != model.identity


def shown(model: VideoReward, path: Path, prompt: str = "") -> Any:
    from vr_pipeline.video.sampled import sample_clip

    return sample_clip(path, prompt, model.sampling(model.loaded()))


def test_a_batch_gives_what_each_clip_has_alone(folder: Path, files: list[Path]) -> None:
    alone = vr.load_reward_model(folder)
    together = vr.load_reward_model({"type": "videoreward", "path": str(folder), "clip_batch": 3})
    np.testing.assert_allclose(together.score(files, PROMPTS)[SCORES], alone.score(files, PROMPTS)[SCORES], atol=1e-5)
    # Bits may differ, so that stored scores of one are not taken for the other's.
    assert together.identity != alone.identity


def test_clips_unlike_training_are_flagged_and_said_once(
    folder: Path, files: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long, fast = tmp_path / "long.mp4", tmp_path / "fast.mp4"
    write_video(long, np.zeros((20, 40, 40, 3), np.uint8), fps=FPS)
    write_video(fast, np.zeros((8, 40, 40, 3), np.uint8), fps=1.0)
    model = vr.load_reward_model(folder)
    with caplog.at_level(logging.WARNING):
        table = model.score([*files, long, fast], [""] * 5)
        model.score([long], [""])
    assert table["outside_training"].tolist() == [False, False, False, True, True]
    (said,) = [record.message for record in caplog.records if "differ from" in record.message]
    assert said.startswith("2 of 5 clips differ from those that the reward was trained on")
    assert "long.mp4: length 10 s (trained on 1.5 to 4)" in said
    stored = by_folder(model, [*files, long, fast], ["p"] * 5, tmp_path / "stored")
    assert stored["outside_training"].to_dict() == {
        "a.mp4": False,
        "b.mp4": False,
        "c.mp4": False,
        "fast.mp4": True,
        "long.mp4": True,
    }


def test_a_configuration_that_shows_clips_otherwise_flags_all(folder: Path, files: list[Path]) -> None:
    model = vr.load_reward_model({"type": "videoreward", "path": str(folder), "max_pixels": 900})
    table = model.score(files, PROMPTS)
    assert table["outside_training"].all()
    assert model.identity != vr.load_reward_model(folder).identity


def test_a_score_that_is_no_number_sets_the_clip_aside(
    folder: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = VideoRewardNetwork.scores

    def scores(self: Any, clips: Any, prompts: Any, **how: Any) -> Any:
        found = whole(self, clips, prompts, **how).clone()
        found[[row for row, prompt in enumerate(prompts) if prompt == "ball"], 2] = float("inf")
        return found

    monkeypatch.setattr(VideoRewardNetwork, "scores", scores)
    for batch in (1, 3):
        model = vr.load_reward_model({"type": "videoreward", "path": str(folder), "clip_batch": batch})
        with pytest.raises(InputError, match=r"c\.mp4.*no number \(inf\) for dimension 'motion'"):
            model.score(files, PROMPTS)
        table = by_folder(model, files, PROMPTS, tmp_path / f"stored {batch}")
        assert sorted(table.index) == ["a.mp4", "b.mp4"]
        assert np.isfinite(table[["total", *SCORES]].to_numpy()).all()


def test_memory_that_runs_out_halves_the_batch_and_one_clip_too_many_is_set_aside(
    folder: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    whole = VideoRewardNetwork.scores

    def scores(self: Any, clips: Any, prompts: Any, **how: Any) -> Any:
        sizes.append(len(clips))
        if len(clips) > 1 or "too much" in prompts:
            raise torch.OutOfMemoryError("out of memory")
        return whole(self, clips, prompts, **how)

    expected = vr.load_reward_model(folder).score(files, PROMPTS)[SCORES]
    monkeypatch.setattr(VideoRewardNetwork, "scores", scores)
    model = vr.load_reward_model({"type": "videoreward", "path": str(folder), "clip_batch": 3})
    assert model.score(files, PROMPTS)[SCORES].equals(expected)
    assert sizes == [3, 1, 1, 1]
    with pytest.raises(InputError, match=r"b\.mp4.*out of memory on one clip of \d+ tokens"):
        model.score(files, ["", "too much", ""])


def test_a_clip_that_cannot_be_taken_is_set_aside(folder: Path, files: list[Path], tmp_path: Path) -> None:
    thin = tmp_path / "thin.mp4"
    write_video(thin, np.zeros((4, 2, 600, 3), np.uint8), fps=FPS)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    model = VideoReward(folder)
    table = by_folder(model, [*files, thin, broken], ["p"] * 5, tmp_path / "stored")
    assert list(table.index) == ["a.mp4", "b.mp4", "c.mp4"]
    with pytest.raises(InputError, match=r"thin\.mp4"):
        model.score([thin], [""])


def test_probabilities_come_from_the_calibration(folder: Path, files: list[Path]) -> None:
    ranker, model = vr.load_ranker(folder), vr.load_reward_model(folder)
    calibration = model.calibration
    first, second = files, [files[1], files[2], files[2]]
    table = ranker.compare(first, second, PROMPTS)
    for row in range(3):
        scores = model.score([first[row], second[row]], [PROMPTS[row]] * 2)
        difference = scores.iloc[0][SCORES].astype(float) - scores.iloc[1][SCORES].astype(float)
        for name, end, value in (
            ("total", "", difference.mean()),
            *((name, f"_{name}", difference[f"dim_{name}"]) for name in NAMES),
        ):
            expected = probabilities(value, calibration.theta[name], calibration.scale[name])
            found = table.loc[row, [f"p_a{end}", f"p_tie{end}", f"p_b{end}"]].astype(float)
            np.testing.assert_allclose(found, expected, atol=1e-9)
            assert found.sum() == pytest.approx(1.0)
        far = abs(difference.mean()) > calibration.tie_threshold["total"]
        assert table.loc[row, "better"] == ("tie" if not far else "a" if difference.mean() > 0 else "b")
    assert table.loc[2, "better"] == "tie"
    assert (table["position_bias"] == 0).all()
    swapped = ranker.compare(second, first, PROMPTS)
    np.testing.assert_allclose(swapped["p_a"], table["p_b"])
    assert ranker.identity != model.identity


def test_the_identity_follows_weights_and_calibration_and_not_the_place(folder: Path, tmp_path: Path) -> None:
    import shutil

    first = vr.load_reward_model(folder).identity
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    assert vr.load_reward_model(moved).identity == first
    assert vr.load_reward_model({"type": "videoreward", "path": str(moved), "device": "cpu"}).identity == first
    content = json.loads((moved / "reward.json").read_text())
    content["provenance"]["note"] = "x"
    (moved / "reward.json").write_text(json.dumps(content))
    assert vr.load_reward_model(moved).identity == first
    content["calibration"]["mean"]["text"] += 1
    (moved / "reward.json").write_text(json.dumps(content))
    assert vr.load_reward_model(moved).identity != first


def test_without_a_calibration_scores_are_raw(tmp_path: Path, files: list[Path]) -> None:
    tiny_network().save(tmp_path)
    model = VideoReward(tmp_path)
    measured = model.measure_clip(shown(model, files[0]))
    assert measured[[f"raw_{name}" for name in NAMES]].to_numpy().tolist() == measured[SCORES].to_numpy().tolist()
    assert not measured["outside_training"].any()


def test_it_can_be_sent_to_workers(folder: Path, files: list[Path]) -> None:
    model = VideoReward(folder)
    expected = model.score(files, PROMPTS)
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(model)).score(files, PROMPTS), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give 'path', the folder of a VideoReward"),
        ({"path": "nowhere"}, r"nowhere, field 'path': this folder has no VideoReward"),
        ({"path": "nowhere", "clip_bach": 2}, r"field 'clip_bach'.*perhaps 'clip_batch'"),
        ({"path": "nowhere", "clip_batch": 0}, "field 'clip_batch'"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        vr.load_reward_model({"type": "videoreward", **settings}, folder=tmp_path)
