"""Rewards by their configuration: a table of scores, an ensemble, and what is wrong with a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

import vr_pipeline as vr
from vr_pipeline.commands import judge as commands
from vr_pipeline.errors import InputError
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.rewards.contract import RewardModel
from vr_pipeline.schemas import Rewards
from vr_pipeline.video.sampled import SampledClip, Sampling
from vr_pipeline.video.write import write_video

SCORES = {"a.mp4": (1.0, 4.0), "b.mp4": (2.0, 2.0), "c.mp4": (6.0, 0.5)}
INDEX = pd.DataFrame(
    {
        "video_id": list(SCORES),
        "prompt_id": ["p", "p", "q"],
        "prompt": "text",
        "sample_index": [0, 1, 0],
        "path": list(SCORES),
        "sha256": ["1", "2", "3"],
        "status": "ok",
    }
)


class Light(RewardModel):
    """Brightness of the last of two frames; a black clip cannot be measured."""

    kind = "light"
    dimensions = ("light",)
    measured_by = ("light 1",)

    def sampling(self, loaded: None) -> Sampling:
        return Sampling(num_frames=2)

    def look(self, loaded: None, clips: list[SampledClip]) -> list[Any]:
        levels = [float(clip.frames[-1].mean()) / 255 for clip in clips]
        return [pd.DataFrame({"dim_light": [level]}) if level else ValueError("black") for level in levels]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Clips that become lighter, and a table of scores in long form, out of order."""
    for level, name in zip((250, 50, 150), SCORES, strict=True):
        ramp = np.linspace(0, level, 5).astype(np.uint8)[:, None, None, None]
        write_video(tmp_path / name, np.broadcast_to(ramp, (5, 16, 16, 3)).copy(), fps=5)
    rows = [(name, key, value) for name, values in SCORES.items() for key, value in zip("xy", values, strict=True)]
    table = pd.DataFrame(rows, columns=["video_id", "dimension", "score"])
    table.iloc[::-1].to_csv(tmp_path / "scores.csv", index=False)
    table.to_parquet(tmp_path / "scores.parquet")
    return tmp_path


def measured(model: RewardModel, folder: Path, stored: Path) -> pd.DataFrame:
    """Rewards of the index by way of a folder of stored items, as pipelines have them."""
    videos = {name: folder / name for name in SCORES}
    items = fill_folder(stored, {"type": "table"}, model.measure(videos, INDEX))
    return Rewards.validate(model.rewards(model.collect(items, INDEX), INDEX))


@pytest.mark.parametrize("file", ["scores.csv", "scores.parquet"])
def test_scores_made_elsewhere(folder: Path, tmp_path: Path, file: str) -> None:
    model = vr.load_reward_model({"type": "scores", "path": str(folder / file)})
    table = measured(model, folder, tmp_path / "stored")
    assert sorted(model.dimensions) == ["x", "y"]
    for name, total, x, y in table[["video_id", "total", "dim_x", "dim_y"]].itertuples(index=False):
        assert (x, y) == SCORES[name]
        assert total == x + y
    one = vr.load_reward_model({"type": "scores", "path": str(folder / file), "total": "y"})
    assert one.dimensions == ("x",)
    assert one.score(["somewhere/b.mp4"], [""]).iloc[0].to_dict() == {"total": 2.0, "dim_x": 2.0}
    assert one.identity != model.identity


def test_clips_that_the_table_lacks_are_named(folder: Path, tmp_path: Path) -> None:
    table = pd.read_csv(folder / "scores.csv")
    table[table["video_id"] + table["dimension"] != "b.mp4y"].to_csv(folder / "less.csv", index=False)
    model = vr.load_reward_model({"type": "scores", "path": str(folder / "less.csv")})
    with pytest.raises(InputError, match=r"less\.csv.*1 scores are missing: 'b\.mp4' \(y\)"):
        measured(model, folder, tmp_path / "stored")
    with pytest.raises(InputError, match=r"2 scores are missing: 'd\.mp4' \(x\), 'd\.mp4' \(y\)"):
        vr.load_reward_model({"type": "scores", "path": str(folder / "scores.parquet")}).score(["d.mp4"], [""])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("video_id,score\na,1\n", "field 'dimension': a column is missing"),
        ("video_id,dimension,score\na,x,1\na,x,1\n", "row 3"),
        ("video_id,dimension,score\na,x,high\n", "row 2"),
        ("video_id,dimension,score\na,,1\n", "row 2"),
    ],
)
def test_tables_that_are_none_are_rejected(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "scores.csv").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        vr.load_reward_model({"type": "scores", "path": str(tmp_path / "scores.csv")})


def test_an_ensemble_is_the_weighted_sum_of_z_scores(folder: Path, tmp_path: Path) -> None:
    scores = {"type": "scores", "path": "scores.csv"}
    totals = np.array([sum(values) for values in SCORES.values()])
    pd.DataFrame({"video_id": list("abc"), "total": totals}).to_parquet(folder / "reference.parquet")
    members = [
        {"name": "people", "reward": scores, "weight": 2.0, "reference": "reference.parquet"},
        {"name": "suite", "reward": scores | {"total": "x"}, "mean": 1.0, "std": 0.5},
    ]
    (folder / "both.yml").write_text(yaml.safe_dump({"type": "ensemble", "members": members}), encoding="utf-8")
    model = vr.load_reward_model(folder / "both.yml")
    assert model.dimensions == ("people", "suite")
    table = measured(model, folder, tmp_path / "stored").set_index("video_id").loc[list(SCORES)]
    first = 2.0 * (totals - totals.mean()) / totals.std(ddof=1)
    second = (np.array([x for x, _ in SCORES.values()]) - 1.0) / 0.5
    np.testing.assert_allclose(table["dim_people"], first)
    np.testing.assert_allclose(table["dim_suite"], second)
    np.testing.assert_allclose(table["total"], first + second)
    # The scale is the ensemble's own: a clip alone has the reward that it has among others.
    alone = model.score([folder / "c.mp4"], ["text"])
    pd.testing.assert_frame_equal(alone, table.loc[["c.mp4"], list(alone)].reset_index(drop=True))
    pd.DataFrame({"video_id": list("abc"), "total": totals + 1}).to_parquet(folder / "reference.parquet")
    assert vr.load_reward_model(folder / "both.yml").identity != model.identity


def test_members_take_their_own_frames_and_a_clip_that_one_cannot_measure_is_left_out(
    folder: Path, tmp_path: Path
) -> None:
    from vr_pipeline.rewards.ensemble import EnsembleReward, Member

    write_video(folder / "b.mp4", np.zeros((5, 16, 16, 3), np.uint8), fps=5)
    scores = vr.load_reward_model({"type": "scores", "path": str(folder / "scores.csv")})
    model = EnsembleReward([Member("scores", scores, 1.0, 0.0, 1.0), Member("light", Light(), 1.0, 0.0, 1.0)])
    table = measured(model, folder, tmp_path / "stored")
    assert table["video_id"].tolist() == ["a.mp4", "c.mp4"]
    np.testing.assert_allclose(table["dim_light"], [250 / 255, 150 / 255], atol=0.01)
    np.testing.assert_allclose(table["total"], table["dim_scores"] + table["dim_light"])
    with pytest.raises(InputError, match=r"b\.mp4.*black"):
        model.score([folder / "b.mp4"], ["text"])
    with pytest.raises(InputError, match="two members have the same name"):
        EnsembleReward([model.members[0], model.members[0]])


def test_frames_in_memory_are_sampled_as_those_of_a_file(folder: Path) -> None:
    frames = vr.read_frames(folder / "a.mp4")
    scores = Light().score([folder / "a.mp4", frames], ["text", "text"])
    assert scores["total"].nunique() == 1
    for wrong in (frames.astype(float), frames[0], frames[:0]):
        with pytest.raises(InputError, match="a clip in memory"):
            Light().score([wrong], ["text"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "nothing"}, "unknown type of reward 'nothing'. Use one of auditor, checklist, diversity"),
        ({"path": "x"}, "unknown type of reward 'None'"),
        ({"type": "scores"}, "field 'path'"),
        ({"type": "scores", "path": "x", "more": 1}, "field 'more'"),
        ({"type": "ensemble", "members": [{"name": "a", "reward": {}}]}, "either 'mean' and 'std', or 'reference'"),
        ({"type": "ensemble", "members": []}, "field 'members'"),
        ("none.yml", "no reward found"),
    ],
)
def test_configurations_that_are_none_say_what_is_wrong(config: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        vr.load_reward_model(config)


def test_commands_take_any_reward(folder: Path) -> None:
    (folder / "mine.yml").write_text("{type: scores, path: scores.csv}", encoding="utf-8")
    options = ["--prompt", "text", "--reward", str(folder / "mine.yml")]
    files = [str(folder / name) for name in SCORES]
    scored = CliRunner().invoke(commands.score, [*files, *options])
    assert scored.exit_code == 0, scored.output
    assert [float(line.split()[1]) for line in scored.stdout.splitlines()[1:]] == [5.0, 4.0, 6.5]
    compared = CliRunner().invoke(commands.compare, [*files[:2], *options])
    assert f"{files[0]} is better (difference +1.0000)." in compared.stdout
    both = CliRunner().invoke(commands.score, [*files, *options, "--weights", str(folder / "mine.yml")])
    assert both.exit_code == 2
