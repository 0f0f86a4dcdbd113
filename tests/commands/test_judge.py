"""kedro score, compare and ask on good and bad files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from odd_files import BAD, GOOD, write_odd_files
from vr_pipeline.checklist import checklist_from_mapping
from vr_pipeline.commands import judge as command_line
from vr_pipeline.judges.training.config import TinyJudgeParameters
from vr_pipeline.judges.training.tiny import create_tiny_judge, words_of
from vr_pipeline.rewards.checklist.scoring import ScoredFile
from vr_pipeline.rewards.checklist.weights import RewardWeights, equal_weights
from vr_pipeline.video.write import write_video

QUESTIONS = [
    {"id": "bright", "text": "is it bright ?"},
    {"id": "as_said", "text": 'is it as in " [[prompt]] " ?'},
    {"id": "gated", "text": "is it very bright ?", "gate": "bright"},
]
CHECKLIST = checklist_from_mapping(
    {
        "name": "light",
        "modality": "video",
        "dimensions": [
            {"name": "light", "sub_dimensions": [{"name": "light", "questions": QUESTIONS[::2]}]},
            {"name": "alignment", "sub_dimensions": [{"name": "alignment", "questions": QUESTIONS[1:2]}]},
        ],
    }
)


class Catalog(dict[str, Any]):
    """As much of a catalog as the commands use."""

    def load(self, name: str) -> Any:
        return self[name]

    def exists(self, name: str) -> bool:
        return name in self


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """A project whose judge is a random tiny model."""
    parameters = TinyJudgeParameters(initial_std=0.4, world="a made-up world")
    family = create_tiny_judge(parameters, words_of([str(q["text"]) for q in QUESTIONS]), seed=1)
    (tmp_path / "model").mkdir()
    family.save(tmp_path / "model")
    params = {"judge": {"family": "qwen2_vl", "path": str(tmp_path / "model")}, "checklist_inference": {}}
    made = Catalog(checklist=CHECKLIST)
    monkeypatch.setattr(command_line, "_context", lambda env: SimpleNamespace(params=params, catalog=made))
    return made


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    random = np.random.default_rng(0)
    write_video(folder / "a.mp4", random.integers(0, 90, (8, 64, 64, 3)).astype(np.uint8), fps=8)
    write_video(folder / "b.mp4", random.integers(150, 255, (20, 30, 50, 3)).astype(np.uint8), fps=8)
    Image.fromarray(random.integers(0, 255, (40, 20, 3)).astype(np.uint8)).save(folder / "c.png")
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def invoke(command: Any, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_score_shows_dimensions_movers_and_bad_files(catalog: Catalog, files: Path) -> None:
    result = invoke(command_line.score, files, "--prompt", "a cat", "--top", 2)
    assert result.exit_code == 1  # one file could not be read
    assert "empty.mp4: the file is empty" in result.stderr
    assert "a made-up world" in result.stderr
    assert "every question has the same weight" in result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["file", "total", "light", "alignment"]
    for row in lines[1:4]:
        _, total, light, alignment = row.split()
        assert float(total) == pytest.approx(float(light) + float(alignment), abs=2e-4)
    assert 'is it as in " a cat " ?' in result.stdout or "bright ?" in result.stdout
    assert "[[prompt]]" not in result.stdout


def test_score_as_json_adds_up(catalog: Catalog, files: Path, tmp_path: Path) -> None:
    weights = RewardWeights(
        ("bright", "gated", "as_said"), np.array([1.0, 2.0, 4.0]), answers="binary", checklist_hash=CHECKLIST.hash
    )
    (tmp_path / "weights.json").write_text(json.dumps(weights.to_json()), encoding="utf-8")
    options = ["--json", "--prompt", "a cat", "--weights", tmp_path / "weights.json"]
    document = json.loads(invoke(command_line.score, files / "*.mp4", *options).stdout)
    assert list(document["failed"]) == [str(files / "empty.mp4")]
    for one in document["files"]:
        yes = {question: p > 0.5 for question, p in one["p_yes"].items()}
        assert one["gated"] == ([] if yes["bright"] else ["gated"])
        expected = 1.0 * yes["bright"] + 2.0 * (yes["gated"] and yes["bright"]) + 4.0 * yes["as_said"]
        assert one["total"] == pytest.approx(expected)
        assert sum(one["dimensions"].values()) == pytest.approx(expected)
        assert len(one["frames"]) == 8
    catalog["reward_weights"] = weights.to_json()
    again = json.loads(invoke(command_line.score, files / "a.mp4", "--json", "--prompt", "a cat").stdout)
    assert again["files"][0] == document["files"][0]


def test_weights_of_another_checklist_are_rejected(catalog: Catalog, files: Path, tmp_path: Path) -> None:
    other = {**equal_weights(CHECKLIST).to_json(), "checklist_hash": "other"}
    (tmp_path / "weights.json").write_text(json.dumps(other), encoding="utf-8")
    result = invoke(command_line.score, files / "a.mp4", "-p", "x", "--weights", tmp_path / "weights.json")
    assert result.exit_code == 1
    assert "fitted with checklist" in result.stderr
    for content, message in (('{"a"', "not valid JSON"), ("[1, 2]", "not reward weights")):
        (tmp_path / "weights.json").write_text(content, encoding="utf-8")
        result = invoke(command_line.score, files / "a.mp4", "-p", "x", "--weights", tmp_path / "weights.json")
        assert f"file {tmp_path / 'weights.json'}" in result.stderr
        assert message in result.stderr


def test_environments_that_are_not_there_are_told_with_those_that_are(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    result = invoke(command_line.score, files / "a.mp4", "-p", "x", "--env", "nope")
    assert result.exit_code == 1
    assert "There is no environment 'nope'" in result.stderr
    assert "cogvideox" in result.stderr


def test_compare_is_antisymmetric(catalog: Catalog, files: Path) -> None:
    first, second = files / "a.mp4", files / "b.mp4"
    there = json.loads(invoke(command_line.compare, first, second, "-p", "a cat", "--json").stdout)
    back = json.loads(invoke(command_line.compare, second, first, "-p", "a cat", "--json").stdout)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert {there["better"], back["better"]} == {"first", "second"}
    assert sum(there["questions"].values()) == pytest.approx(there["difference"])
    same = json.loads(invoke(command_line.compare, first, first, "-p", "a cat", "--json").stdout)
    assert same["better"] == "tie"
    words = invoke(command_line.compare, first, second, "-p", "a cat").stdout
    assert str({"first": first, "second": second}[there["better"]]) + " is better" in words
    broken = invoke(command_line.compare, first, files / "empty.mp4", "-p", "a cat")
    assert broken.exit_code == 1
    assert "empty (0 bytes)" in broken.stderr


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ([0.1, 0.2, 0.3], " is better in every dimension (difference"),
        ([1.0, 2.0, 0.5], " is better in 1 of 3 dimensions and equal in the others (difference"),
        ([1.0, 2.5, 0.0], " is better (difference"),
    ],
)
def test_compare_says_in_how_many_dimensions(
    catalog: Catalog, files: Path, monkeypatch: pytest.MonkeyPatch, second: list[float], words: str
) -> None:
    rewards = {"a.mp4": [1.0, 2.0, 3.0], "b.mp4": second}

    def scored(judge: Any, path: Path, prompt: str, *_: Any) -> ScoredFile:
        values = rewards[path.name]
        yes = dict.fromkeys(CHECKLIST.question_ids, 0.5)
        return ScoredFile(path, sum(values), dict(zip("xyz", values, strict=True)), yes, [], yes, 0.0, [0])

    monkeypatch.setattr("vr_pipeline.rewards.checklist.scoring.score_file", scored)
    for names in (("a.mp4", "b.mp4"), ("b.mp4", "a.mp4")):
        said = invoke(command_line.compare, *(files / name for name in names), "-p", "a cat").stdout
        assert f"{files / 'a.mp4'}{words}" in said


def test_files_about_which_the_judge_has_no_numbers_fail_alone(
    catalog: Catalog, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vr_pipeline.judges.vlm import VisionLanguageJudge

    probabilities = VisionLanguageJudge._probabilities
    monkeypatch.setattr(
        VisionLanguageJudge,
        "_probabilities",
        lambda self, logits: tuple(part * np.nan if broken[-1] else part for part in probabilities(self, logits)),
    )
    broken: list[bool] = []
    prepare = VisionLanguageJudge.prepare
    monkeypatch.setattr(
        VisionLanguageJudge,
        "prepare",
        lambda self, frames, *rest: broken.append(frames.mean() > 120) or prepare(self, frames, *rest),
    )
    result = invoke(command_line.score, files / "a.mp4", files / "b.mp4", "-p", "a cat", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert [Path(one["path"]).name for one in document["files"]] == ["a.mp4"]
    ((name, message),) = document["failed"].items()
    assert Path(name).name == "b.mp4"
    assert f"file {files / 'b.mp4'}" in message
    assert "the judge gave no probability (nan)" in message
    asked = invoke(command_line.ask, files / "a.mp4", files / "b.mp4", "is it bright ?")
    assert asked.exit_code == 1
    assert len(asked.stdout.splitlines()) == 1
    assert "nan" not in asked.stdout
    compared = invoke(command_line.compare, files / "a.mp4", files / "b.mp4", "-p", "a cat")
    assert compared.exit_code == 1
    assert "better" not in compared.stdout


def test_an_empty_prompt_is_rejected_where_questions_ask_about_it(catalog: Catalog, files: Path) -> None:
    for command, names in ((command_line.score, ["a.mp4"]), (command_line.compare, ["a.mp4", "b.mp4"])):
        result = invoke(command, *(files / name for name in names), "--prompt", " ")
        assert result.exit_code == 2
        assert "The prompt is empty, but question 'as_said' asks about it" in result.stderr


def test_ask(catalog: Catalog, files: Path) -> None:
    result = invoke(command_line.ask, files / "a.mp4", files / "c.png", "is it bright ?")
    assert result.exit_code == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[2] for row in rows] == [str(files / "a.mp4"), str(files / "c.png")]
    assert all((row[0] == "yes") == (float(row[1]) > 0.5) for row in rows)
    assert invoke(command_line.ask, files / "a.mp4", 'is it " [[prompt]] " ?').exit_code == 2
    assert invoke(command_line.ask, files / "a.mp4", 'is it " [[prompt]] " ?', "-p", " ").exit_code == 2
    assert "question is empty" in invoke(command_line.ask, files / "a.mp4", " ").stderr
    # A forgotten question, and one that stands first: a file's name is not asked.
    for wrong in ([files / "a.mp4", files / "c.png"], ["is it bright ?", files / "a.mp4"]):
        result = invoke(command_line.ask, *wrong)
        assert result.exit_code == 2
        assert "The last argument must be the question" in result.stderr
    assert invoke(command_line.ask, files / "a.mp4", f"is it bright {'and bright ' * 100}?").exit_code == 0
    missing = invoke(command_line.ask, files / "none.mp4", "is it bright ?")
    assert missing.exit_code == 1
    assert "no file has this name" in missing.stderr


def test_public_question_lists_with_their_weights(catalog: Catalog, files: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"is it {number} ?\n" for number in range(29)), encoding="utf-8")
    values = np.linspace(0.1, 2.0, 29)
    (tmp_path / "list.json").write_text(json.dumps(values.tolist()), encoding="utf-8")
    options = ["-p", "a cat", "--checklist", tmp_path / "list.txt", "--json"]
    weighed = invoke(command_line.score, files / "a.mp4", *options, "--weights", tmp_path / "list.json")
    assert weighed.exit_code == 0, weighed.output
    document = json.loads(weighed.stdout)["files"][0]
    said = np.where(np.array(list(document["p_yes"].values())) > 0.5, 1, -1)
    assert document["total"] == pytest.approx(float(said @ values))
    # What VisionReward publishes is the mean.
    assert document["visionreward_score"] == pytest.approx(float((said * values).mean()))
    plain = invoke(command_line.score, files / "a.mp4", *options[:-1], "--weights", tmp_path / "list.json")
    assert plain.stdout.split()[:3] == ["file", "visionreward_score", "total"]
    assert "the mean of the 29 weighted answers" in plain.stderr
    equal = json.loads(invoke(command_line.score, files / "a.mp4", *options).stdout)
    assert any("every question has the same weight" in note for note in equal["notes"])
    assert "visionreward_score" not in equal["files"][0]
    (tmp_path / "list.json").write_text("[1, 2]", encoding="utf-8")
    short = invoke(command_line.score, files / "a.mp4", *options, "--weights", tmp_path / "list.json")
    (tmp_path / "list.json").write_text(json.dumps([1.0] * 28 + [float("nan")]), encoding="utf-8")
    wrong = invoke(command_line.score, files / "a.mp4", *options, "--weights", tmp_path / "list.json")
    assert "list.json: weight 29 is nan, not a finite number" in wrong.stderr
    assert short.exit_code == 1
    assert "2 weights, but the question list needs 29" in short.stderr


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    write_odd_files(folder)
    return folder


def test_every_odd_file_gets_one_clear_word_and_the_others_are_judged(catalog: Catalog, odd: Path) -> None:
    # A name that is typed is taken at its word; a folder gives what is named as a video or an image.
    result = invoke(command_line.score, odd, odd / "video.txt", "-p", "a cat", "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert sorted(Path(one["path"]).name for one in document["files"]) == sorted(GOOD)
    assert {Path(name).name for name in document["failed"]} == set(BAD)
    for name, message in document["failed"].items():
        assert BAD[Path(name).name] in message
        assert "\n" not in message
    frames = {Path(one["path"]).name: one["frames"] for one in document["files"]}
    assert frames["one_frame.mp4"] == frames["picture.jpg"] == [0]
    assert frames["good.mp4"] == [0, 3, 5, 8, 11, 14, 16, 19]
    by_name = {Path(one["path"]).name: one["total"] for one in document["files"]}
    assert by_name["video.txt"] == by_name["good.mp4"]
    plain = invoke(command_line.score, odd, "-p", "a cat", "--top", 0)
    assert "Traceback" not in plain.stderr
    assert all(f"{odd / name}: " in plain.stderr for name in BAD)


def test_patterns_folders_and_names_that_match_nothing(catalog: Catalog, odd: Path, tmp_path: Path) -> None:
    def asked(*files: object) -> list[str]:
        result = invoke(command_line.ask, *files, "is it bright ?", "--json")
        assert result.exit_code == 0, result.output
        return [Path(one["path"]).name for one in json.loads(result.stdout)["files"]]

    assert asked(odd / "o*.mp4", odd / "*.jpg", odd / "picture.jpg") == ["one_frame.mp4", "picture.jpg"]
    assert asked(odd / "**" / "turned.*") == ["turned.mov"]
    (tmp_path / "nothing").mkdir()
    several = invoke(command_line.score, tmp_path / "nothing", "none.mp4", odd / "good.mp4", "-p", "x", "--json")
    assert several.exit_code == 1
    document = json.loads(several.stdout)
    assert [Path(one["path"]).name for one in document["files"]] == ["good.mp4"]
    assert list(document["failed"]) == [str(tmp_path / "nothing"), "none.mp4"]
    wrong = [(odd / "*.gif", "matches this pattern"), (tmp_path / "nothing", "holds no videos")]
    for file, message in [*wrong, ("is it dark ? " * 30, "no file has this name")]:
        result = invoke(command_line.ask, file, "is it bright ?")
        assert result.exit_code == 1
        assert message in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.real_data
def test_real_files(catalog: Catalog, real_data: Path) -> None:
    public = real_data / "upstream/visionreward"
    files = [real_data / "data/videos", public / "test1.mp4", public / "test1.jpg"]
    result = invoke(command_line.score, *files, "-p", "a cat", "--json")
    document = json.loads(result.stdout)
    assert [Path(name).name for name in document["failed"]] == ["corrupted.mp4"]
    assert "truncated or damaged" in next(iter(document["failed"].values()))
    assert len(document["files"]) == 11
    assert next(one for one in document["files"] if one["path"].endswith("test1.jpg"))["frames"] == [0]
