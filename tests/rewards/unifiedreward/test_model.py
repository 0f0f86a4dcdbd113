"""The reward as a whole: folders and configurations, one number whoever asks, both orders of every pair."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner

import vr_pipeline as vr
from tiny_unifiedreward import TEMPLATE, saved_reward, toy_clips, toy_template
from vr_pipeline.commands import judge as commands
from vr_pipeline.errors import InputError
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.judges.contract import NoNumbersError
from vr_pipeline.rewards.registry import checked_settings
from vr_pipeline.rewards.unifiedreward.model import UnifiedReward
from vr_pipeline.rewards.unifiedreward.ranker import COLUMNS, UnifiedRanker
from vr_pipeline.video.write import write_video

PROMPT = "a blue ring moves left"
CONFIG: dict[str, Any] = {"type": "unifiedreward", "device": "cpu", "threads": 1, "max_median_outside_mass": 1.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_reward(tmp_path_factory.mktemp("reward") / "toy")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(4)
    found = []
    for number, count in enumerate((4, 6, 5)):
        frames = random.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        write_video(path := place / f"{number}.mp4", frames, fps=4)
        found.append(path)
    return found


@pytest.fixture(scope="module")
def index(files: list[Path]) -> pd.DataFrame:
    rows = [{"video_id": path.stem, "path": path.name, "sha256": path.stem} for path in files]
    table = pd.DataFrame([*rows, {"video_id": "torn", "path": "torn.mp4", "sha256": "torn"}])
    return table.assign(prompt_id="p", prompt=PROMPT, sample_index=range(len(table)), status="ok")


@pytest.fixture(scope="module")
def model(folder: Path) -> UnifiedReward:
    made = vr.load_reward_model({**CONFIG, "path": str(folder)})
    assert isinstance(made, UnifiedReward)
    return made


@pytest.fixture(scope="module")
def ranker(model: UnifiedReward) -> UnifiedRanker:
    from vr_pipeline.rewards.registry import ranker_of

    made = ranker_of(model)
    assert isinstance(made, UnifiedRanker)
    return made


def test_one_number_whoever_asks(
    model: UnifiedReward, folder: Path, files: list[Path], index: pd.DataFrame, tmp_path: Path
) -> None:
    """Stored item by item, scored from files, by the command, and by another object from the folder."""
    videos = {path.name: path for path in files}
    stored = fill_folder(tmp_path / "items", {"type": "table"}, model.measure(videos, index))
    measured = model.collect(stored, index)
    rewards = model.rewards(measured, index)
    assert rewards["video_id"].tolist() == [path.stem for path in files]
    vr_scores = vr.load_reward_model({**CONFIG, "path": str(folder)}).score(files, [PROMPT] * 3)
    columns = ["total", "dim_look", "dim_moves"]
    pd.testing.assert_frame_equal(vr_scores[columns], rewards[columns], check_exact=True)
    (tmp_path / "r.yml").write_text(yaml.safe_dump({**CONFIG, "path": str(folder)}))
    said = CliRunner().invoke(
        commands.score, [str(files[1]), "--prompt", PROMPT, "--reward", str(tmp_path / "r.yml"), "--json"]
    )
    (scored,) = json.loads(said.stdout)["files"]
    assert scored["total"] == rewards["total"][1]
    assert scored["dimensions"] == {"look": rewards["dim_look"][1], "moves": rewards["dim_moves"][1]}
    assert scored["outside_mass"] == rewards["outside_mass"][1]
    # What could not be read has its reason, and no number.
    (parts,) = [stored.load(key) for key in stored.keys]
    torn = parts[parts["video_id"] == "torn"].iloc[0]
    assert "torn.mp4" in torn["error"]
    assert np.isnan(torn["total"])


def test_items_are_measured_once(model: UnifiedReward, files: list[Path], index: pd.DataFrame, tmp_path: Path) -> None:
    videos = {path.name: path for path in files}
    fill_folder(tmp_path / "items", {"type": "table"}, model.measure(videos, index[:3]))
    again = UnifiedReward(model.model_folder, model.artifact, model.settings)
    fill_folder(tmp_path / "items", {"type": "table"}, again.measure(videos, index[:3]))
    assert again._loaded is None


def identity(folder: Path, **settings: Any) -> str:
    return vr.load_reward_model({**CONFIG, "path": str(folder), **settings}).identity


def test_identity(folder: Path, tmp_path: Path) -> None:
    """Whatever changes a number changes it; the place and the machine do not."""
    same = identity(folder)
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    assert identity(moved, threads=2, reader_threads=1, clips_per_item=4) == same
    changes: list[dict[str, Any]] = [
        {"num_frames": 3},
        {"frames_per_second": 3.0},
        {"max_pixels": 900},
        {"dtype": "bfloat16"},
        {"task": "image_generation"},
        {"clip_batch": 2},
    ]
    assert len({same, *(identity(folder, **one) for one in changes)}) == len(changes) + 1
    content = json.loads((moved / "reward.json").read_text())
    content["template"]["video_generation"]["point"]["text"] += " now"
    (moved / "reward.json").write_text(json.dumps(content))
    assert identity(moved) != same
    tampered = tmp_path / "tampered"
    shutil.copytree(folder, tampered)
    settings = json.loads((tampered / "model/judge.json").read_text())
    (tampered / "model/judge.json").write_text(json.dumps(settings | {"mean": [0.5, 0.5, 0.5]}))
    assert identity(tampered) != same


def test_a_published_checkpoint(folder: Path, model: UnifiedReward, files: list[Path], tmp_path: Path) -> None:
    """A folder of transformers with nothing of ours in it, and a template by its file."""
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(folder / "model", checkpoint)
    settings = json.loads((checkpoint / "judge.json").read_text())
    (checkpoint / "judge.json").unlink()
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(TEMPLATE))
    config = {**CONFIG, "path": "checkpoint", "family": "qwen2_vl", "template": "mine.yml"}
    sizes = {"min_pixels": settings["min_pixels"], "max_pixels": settings["max_pixels"]}
    (tmp_path / "reward.yml").write_text(yaml.safe_dump({**config, **sizes}))
    found = vr.load_reward_model(tmp_path / "reward.yml").score(files, [PROMPT] * 3)
    expected = model.score(files, [PROMPT] * 3)
    assert found["total"].tolist() == expected["total"].tolist()
    del config["template"], config["family"]
    with pytest.raises(InputError, match=r"with 'family' and 'template'"):
        vr.load_reward_model({**config, "path": str(checkpoint)})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give 'path'"),
        ({"path": "x", "family": "qwen2_vl"}, "together"),
        ({"path": "x", "family": "cogvlm2_video", "template": "own"}, "must be one of qwen2_vl"),
        ({"path": "x", "revision": "0" * 40}, "'family' and 'template'"),
        ({"path": "x", "tasks": "video_generation"}, "perhaps 'task'"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked_settings({"type": "unifiedreward", **settings})


def test_folders_that_are_not_whole(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    shutil.rmtree(broken / "model")
    with pytest.raises(InputError, match="has no vision-language model"):
        vr.load_reward_model(broken).identity  # noqa: B018
    (broken / "reward.json").write_text("{")
    with pytest.raises(InputError, match=r"reward\.json"):
        vr.load_reward_model({**CONFIG, "path": str(broken)})
    with pytest.raises(InputError, match="already defines family and template"):
        vr.load_reward_model({**CONFIG, "path": str(folder), "family": "qwen2_vl", "template": "own"})


def test_a_run_stops_whose_model_does_not_answer_with_numbers(model: UnifiedReward, folder: Path) -> None:
    strict = vr.load_reward_model({**CONFIG, "path": str(folder), "max_median_outside_mass": 0.5})
    table = pd.DataFrame({"outside_mass": [0.1, 0.9, 0.8]})
    model.check(table)
    with pytest.raises(InputError, match=r"0\.800.*'toy'"):
        strict.check(table)


def test_clips_that_cannot_be_taken_and_overflow(folder: Path) -> None:
    """One bad clip leaves the others alone; a model that overflows gives no number to any."""
    model = UnifiedReward.from_settings(checked_settings({**CONFIG, "path": str(folder), "clip_batch": 3})[1], Path())
    clips = list(toy_clips().values())
    thin = np.zeros((2, 8, 4000, 3), np.uint8)
    bad = type(clips[0])("bad", PROMPT, thin, [0, 1], 2.0)
    outcomes = model.look(model.loaded(), [clips[0], bad, clips[1]])
    assert isinstance(outcomes[1], ValueError)
    alone = model.look(model.loaded(), [clips[0]])[0]
    assert isinstance(outcomes[0], pd.DataFrame)
    assert isinstance(alone, pd.DataFrame)
    assert outcomes[0]["total"].item() == pytest.approx(alone["total"].item(), abs=1e-5)
    with torch.no_grad():
        model.loaded().family.model.lm_head.weight.fill_(torch.inf)
    (broken,) = model.look(model.loaded(), [clips[0]])
    assert isinstance(broken, NoNumbersError)
    with pytest.raises(InputError, match="no probability"):
        model.score([clips[0].frames], [PROMPT], fps=2)
    with pytest.raises(InputError, match="no probability"):
        UnifiedRanker(model).compare([clips[0].frames], [clips[1].frames], [PROMPT], fps=2)


def test_a_group_is_compared_as_its_pairs_are(ranker: UnifiedRanker) -> None:
    clips = toy_clips()
    pairs = [("a", "b"), ("c", "b"), ("a", "c"), ("b", "a")]
    group = ranker.compare_group(clips, pairs, PROMPT)
    assert list(group.columns) == list(COLUMNS)
    for row, (a, b) in enumerate(pairs):
        alone = ranker.compare_group({a: clips[a], b: clips[b]}, [(a, b)], PROMPT)
        numbers = [name for name in COLUMNS if name != "better"]
        assert group.loc[row, numbers].astype(float).tolist() == pytest.approx(
            alone.loc[0, numbers].astype(float).tolist(), abs=1e-5
        )
        assert group["better"][row] == alone["better"][0]
    # Either side may be named first.
    assert group["p_a"][0] == pytest.approx(group["p_b"][3], abs=1e-6)
    assert group["p_tie"][0] == pytest.approx(group["p_tie"][3], abs=1e-6)
    assert ranker.compare_group(clips, [], PROMPT).empty


def test_files_are_compared_as_frames_are(ranker: UnifiedRanker, files: list[Path]) -> None:
    from vr_pipeline.video.sampled import sample_clip

    shown = {path.stem: sample_clip(path, PROMPT, ranker.sampling()) for path in files[:2]}
    by_name = ranker.compare_group(shown, [("0", "1")], PROMPT)
    by_file = ranker.compare([files[0]], [files[1]], [PROMPT])
    pd.testing.assert_frame_equal(by_name, by_file, check_exact=True)


def test_a_clip_against_itself_is_a_tie(ranker: UnifiedRanker, files: list[Path]) -> None:
    """Whatever the model makes of the first place."""
    row = ranker.compare([files[0]], [files[0]], [PROMPT]).iloc[0]
    assert row["better"] == "tie"
    assert row["p_a"] == pytest.approx(row["p_b"], abs=1e-6)
    assert row["p_a_first_order"] != pytest.approx(row["p_b_first_order"], abs=1e-3)


def test_responses_share_their_clip(model: UnifiedReward, ranker: UnifiedRanker, files: list[Path]) -> None:
    """Rows keep their order, and are what they are alone; a clip is looked at once."""
    clips = [files[0], files[1], files[0]]
    prompts, first, second = ["is it red ?"] * 3, ["yes", "red ball", "no"], ["no", "blue", "yes"]
    family = model.loaded().family
    seen: list[int] = []
    features = family.vision_features
    family.vision_features = lambda some: seen.append(len(some)) or features(some)  # type: ignore[method-assign]
    scores = model.score_responses(clips, prompts, first)
    compared = ranker.compare_responses(clips, prompts, first, second)
    del family.vision_features
    assert sum(seen) == 4
    for row in range(3):
        alone = model.score_responses(clips[row : row + 1], prompts[:1], first[row : row + 1])
        assert scores.loc[row].astype(float).tolist() == pytest.approx(alone.loc[0].astype(float).tolist(), abs=1e-5)
        pair = ranker.compare_responses([clips[row]], prompts[:1], [first[row]], [second[row]])
        assert compared["p_a"][row] == pytest.approx(pair["p_a"][0], abs=1e-5)
    # The third row is the first with its sides swapped.
    assert compared["p_a"][0] == pytest.approx(compared["p_b"][2], abs=1e-6)
    assert list(scores.columns) == ["total", "dim_clear", "dim_sharp", "outside_mass"]
    assert ranker.compare_responses([], [], [], []).empty


def test_a_row_that_cannot_be_judged_is_named(model: UnifiedReward, files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"torn\.mp4"):
        model.score_responses([files[0], tmp_path / "torn.mp4"], ["what ?"] * 2, ["yes"] * 2)


def test_a_ranker_without_scores(folder: Path, files: list[Path], tmp_path: Path) -> None:
    """A checkpoint that only compares ranks, and says that it has no score."""
    only = with_template(folder, tmp_path / "pairs", video_generation__point=None)
    config = {**CONFIG, "path": str(only)}
    assert vr.load_ranker(config).compare([files[0]], [files[1]], [PROMPT])["p_a"].notna().all()
    with pytest.raises(InputError, match="no point of the task"):
        vr.load_reward_model(config).score(files[:1], [PROMPT])


def with_template(folder: Path, place: Path, **changes: Any) -> Path:
    """The model with another template."""
    shutil.copytree(folder, place)
    content = json.loads((place / "reward.json").read_text())
    content["template"] = toy_template(**changes).model_dump(mode="json")
    (place / "reward.json").write_text(json.dumps(content))
    return place


def test_images_with_an_overall_score_alone(folder: Path, tmp_path: Path) -> None:
    """As the first published checkpoints score images: no dimensions, one number."""
    from PIL import Image

    pixels = np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    line = {"dimension": "total", "before": "look ", "low": 1, "high": 5}
    point = {"text": "[[clip]] show [[prompt]]", "lines": [line], "total": "line"}
    place = with_template(folder, tmp_path / "images", image_generation__point=point)
    model = vr.load_reward_model({**CONFIG, "path": str(place), "task": "image_generation"})
    assert model.dimensions == ()
    scores = model.score([tmp_path / "one.png", pixels[None]], [PROMPT] * 2, fps=1)
    assert list(scores.columns) == ["total", "outside_mass", "model", "sampling"]
    assert 1 <= scores["total"][0] <= 5
    assert scores["total"][0] == scores["total"][1]


@pytest.mark.parametrize(
    ("settings", "frames", "expected"),
    [
        ({}, {}, (768, 2.0)),  # as the family was published
        ({}, {"num_frames": 3}, (3, None)),
        ({"frames_per_second": 1.5}, {"num_frames": 3}, (None, 1.5)),
        ({"num_frames": 2, "frames_per_second": 4.0}, {"frames_per_second": 1.0}, (2, 4.0)),
    ],
)
def test_frames_are_those_of_configuration_template_and_folder_in_this_order(
    folder: Path, tmp_path: Path, settings: dict[str, Any], frames: dict[str, Any], expected: tuple[Any, Any]
) -> None:
    place = with_template(folder, tmp_path / "sampled", frames=frames)
    model = vr.load_reward_model({**CONFIG, "path": str(place), **settings})
    assert model.sampling(model.loaded()) == expected


def test_the_command_compares_by_both_orders(
    folder: Path, ranker: UnifiedRanker, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "r.yml").write_text(yaml.safe_dump({**CONFIG, "path": str(folder)}))
    command = [str(files[0]), str(files[1]), "--prompt", PROMPT, "--reward", str(tmp_path / "r.yml")]
    document = json.loads(CliRunner().invoke(commands.compare, [*command, "--json"]).stdout)
    (row,) = ranker.compare([files[0]], [files[1]], [PROMPT]).to_dict("records")
    said = document["probabilities"]
    assert (said["first"], said["second"], said["tie"]) == (row["p_a"], row["p_b"], row["p_tie"])
    assert (said["position_bias"], said["outside_mass"]) == (row["position_bias"], row["outside_mass"])
    assert document["better"] == {"a": "first", "b": "second", "tie": "tie"}[row["better"]]
    shown = CliRunner().invoke(commands.compare, command).stdout
    assert f"position bias {row['position_bias']:+.3f}" in shown
