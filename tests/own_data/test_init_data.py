"""The command init-data: every problem at once, and environments that load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from kedro.io import AbstractDataset as KedroDataset
from PIL import Image
from tests.end_to_end.conftest import copy_project

from vr_pipeline.cli import cli
from vr_pipeline.own_data.checks import check_checklist, check_preferences
from vr_pipeline.own_data.findings import Finding, lines_of
from vr_pipeline.own_data.plan import configuration
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.video.write import write_video

PROMPTS = (
    "A tabby cat sleeps on a warm windowsill while snow falls outside",
    "A red kite climbs over green hills in the wind",
    "Two children build a sandcastle as the tide comes in",
    "An old fisherman mends his nets on a wooden pier at dawn",
    "Steam rises from a cup of tea beside an open book",
    "A yellow taxi splashes through puddles on a busy street at night",
)
CHECKLIST = """
name: mine
modality: video
dimensions:
  - name: motion
    sub_dimensions:
      - name: speed
        questions:
          - {id: fast, text: is it fast}
          - {id: smooth, text: is it smooth}
"""


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("shipped") / "project")


@pytest.fixture
def project(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with own files, whose shipped part is shared between tests."""
    import shutil

    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "src").mkdir()
    shutil.copytree(shipped / "conf", folder / "conf", ignore=shutil.ignore_patterns("mydata", "ours", "local"))
    shutil.copy(shipped / "pyproject.toml", folder)
    (folder / "data" / "06_models").symlink_to(shipped / "data" / "06_models")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    (folder / "checklist.yml").write_text(CHECKLIST)
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        write_video(folder / "clips" / f"{name}.mp4", random.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8), fps=8)
    (folder / "preferences.csv").write_text(
        "prompt,video_path_a,video_path_b,preference\na cat,a.mp4,b.mp4,a\na dog,b.mp4,c.mp4,b\n"
    )
    monkeypatch.chdir(folder)
    return folder


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["init-data", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


ALL = ("--prompts", "prompts.txt", "--videos", "clips", "--preferences", "preferences.csv", "--checklist")


def test_an_environment_of_all_own_files(project: Path) -> None:
    result = call(*ALL, "checklist.yml")
    assert result.exit_code == 0, result.output
    assert "simulated data): its answers" in result.output  # the demo's judge is no judge of these clips
    loaded = configuration(project, "mydata")
    catalog = loaded["catalog"]
    assert catalog["raw_prompts"]["filepath"] == "prompts.txt"
    assert catalog["preference_videos"]["path"] == "clips"
    assert catalog["human_preferences"]["videos"] == {"path": "clips"}
    assert catalog["checklist"]["filepath"] == "checklist.yml"
    assert catalog["oracle"]["filepath"] is None
    assert catalog["auditor"]["filepath"] is None
    assert catalog["reward_weights"]["filepath"].startswith("data/mydata/")
    base = configuration(project, None)["parameters"]
    own = loaded["parameters"]
    assert own["prompt_filtering"]["rouge"]["threshold"] == 0.7 != base["prompt_filtering"]["rouge"]["threshold"]
    assert own["dpo_training"]["checkpoint_folder"] == "data/mydata/06_models/checkpoints"
    assert own["dpo_training"]["training"] == base["dpo_training"]["training"]
    assert own["video_generation"] == base["video_generation"]
    for command in ("--pipeline=prompt_filtering", "--to-outputs=reward_agreement"):
        assert f"kedro run --env=mydata {command}" in result.output
    again = call(*ALL, "checklist.yml")
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    assert call(*ALL, "checklist.yml", "--overwrite").exit_code == 0


def test_prompts_of_the_demo_keep_its_thresholds_and_need_no_warning(project: Path) -> None:
    colours, shapes = ("red", "green", "blue", "yellow"), ("ball", "ring")
    lines = [f"{colour} {shape} moves left on black" for colour in colours for shape in shapes]
    (project / "prompts.txt").write_text("\n".join(lines))
    result = call("--prompts", "prompts.txt")
    assert result.exit_code == 0, result.output
    assert "8 pass the filter" in result.output
    assert "meaningless" not in result.output
    assert "1 validation" in result.output
    assert "no validation prompts" not in result.output
    assert configuration(project, "mydata")["parameters"]["dpo_training"]["validation"] is not None


def test_too_few_prompts_for_validation_make_an_environment_that_trains_all_the_same(project: Path) -> None:
    result = call("--prompts", "prompts.txt")
    assert result.exit_code == 0, result.output
    assert "0 validation" in result.output
    assert "there are no validation prompts" in result.output
    own = configuration(project, "mydata")["parameters"]["dpo_training"]
    assert own["validation"] is None
    assert DpoTrainingParameters.model_validate(own).validation is None
    real = call("--prompts", "prompts.txt", "--base-env", "cogvideox", "--env", "ours")
    assert "set dpo_training.validation to null" in " ".join(real.output.split())


def test_an_environment_over_a_real_one(project: Path) -> None:
    result = call(
        "--prompts", "prompts.txt", "--checklist", "checklist.yml", "--base-env", "cogvideox", "--env", "ours"
    )
    assert result.exit_code == 0, result.output
    assert "meaningless" not in result.output
    # One after the other: Kedro resolves ${globals:...} by the loader that was made last.
    own, real = ({kind: dict(loader[kind]) for kind in ("catalog", "parameters")} for loader in _loaders(project))
    assert own["catalog"]["checklist"]["filepath"] == "checklist.yml"
    assert own["catalog"]["judge_annotations"]["checklist"] == "checklist.yml"
    lines = [line for path in (project / "conf" / "ours").iterdir() for line in path.read_text().splitlines()]
    assert len(lines) < 35, "an environment states what differs"
    assert own["catalog"]["videos"]["format"] == real["catalog"]["videos"]["format"]
    assert own["parameters"]["video_generation"] == real["parameters"]["video_generation"]
    assert own["parameters"]["prompt_filtering"]["rouge"] == real["parameters"]["prompt_filtering"]["rouge"]
    assert "data/cogvideox" not in str(own)
    assert "data/cogvideox" in str(real)


def _loaders(project: Path) -> Iterator[Any]:
    for env in ("ours", "cogvideox"):
        yield configuration(project, env)


def test_every_problem_is_said_at_once_and_nothing_written(project: Path) -> None:
    (project / "preferences.csv").write_text(
        "prompt,video_path_a,video_path_b,preference\n"
        "a cat,a.mp4,gone.mp4,a\n"
        ",b.mp4,c.mp4,best\n"
        "a dog,b.mp4,b,b\n"
        "a cow,c.mp4,c.mp4,\n"
        "a sheep,a.mp4\n"
        "a goat,a.mp4,gone.mp4,a\n"
    )
    (project / "checklist.yml").write_text(
        CHECKLIST.replace("modality: video", "modality: film") + "          - {id: fast, gate: none, text: is it}\n"
        "          - {id: empty}\n          - {id: odd, text: is it, weighted: perhaps, colour: red}\n"
    )
    (project / "prompts.csv").write_text("words\na cat\n")
    result = call(
        *("--prompts", "prompts.csv", "--videos", "clips", "--preferences", "preferences.csv"),
        *("--checklist", "checklist.yml"),
    )
    assert result.exit_code == 1
    text = result.output
    for part in (
        "prompts.csv, row 1, field 'prompt': there is no column",
        "preferences.csv, rows 2, 7, field 'video_path_b': there is no clip 'gone.mp4'",
        "preferences.csv, row 3, field 'prompt': the prompt is empty",
        "preferences.csv, row 3, field 'preference': unknown label 'best'",
        "preferences.csv, row 4, field 'video_path_b': both names refer to the clip b.mp4",
        "preferences.csv, row 5, field 'preference': the label is empty",
        "preferences.csv, row 5, field 'video_path_b': a clip is compared with itself",
        "preferences.csv, row 6: the row has 2 fields, the header 4",
        "'modality' of the checklist is 'film'",
        "the question id 'fast' is used 2 times",
        "has the gate 'none'",
        "question 'empty' has no 'text'",
        "unknown key 'colour'",
    ):
        assert part in text, f"{part}\nis not in\n{text}"
    assert not (project / "conf" / "mydata").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Give --prompts"),
        (("--checklist", "checklist.yml"), "checklist alone is not enough"),
        (("--videos", "clips"), "--videos needs --preferences, or --prompts"),
        (("--videos", "clips", "--prompts", "prompts.txt"), "no clip of clips has one of the prompts"),
        (("--preferences", "preferences.csv"), "--preferences needs --videos"),
        (("--prompts", "none.txt"), "Correct the path given with --prompts"),
        (("--prompts", "prompts.txt", "--env", "base"), "cannot be the name"),
        (("--prompts", "prompts.txt", "--env", "../x"), "cannot be the name"),
        (("--prompts", "prompts.txt", "--base-env", "sora"), "Choose among cogvideox"),
        (("--videos", "none", "--preferences", "preferences.csv"), "Correct the path given with --videos"),
        (("--videos", "prompts.txt", "--preferences", "preferences.csv"), "folder of clips does not exist"),
        (("--prompts", "prompts.txt", "--checklist", "clips"), "cannot be read"),
        (("--videos", "clips", "--preferences", "clips"), "files of type"),
        (("--videos", "clips", "--preferences", "preferences.csv", "--preference-format", "odd"), "unknown format"),
        (("--videos", "clips", "--preferences", "preferences.csv", "--label", "left"), "LABEL=MEANING"),
        (("--videos", "clips", "--preferences", "preferences.csv", "--column", "prompt="), "NAME=COLUMN"),
        (("--videos", "clips", "--prompts", "prompts.txt", "--column", "prompt=x"), "--column needs --preferences"),
        (("--videos", "clips", "--preferences", "preferences.csv", "--prompt-column", "x"), "needs --prompts"),
    ],
)
def test_options_that_do_not_fit(project: Path, arguments: tuple[str, ...], expected: str) -> None:
    result = call(*arguments)
    assert result.exit_code != 0
    assert expected in " ".join(result.output.split())
    assert not (project / "conf" / "mydata").exists()


def test_first_frames_are_checked_and_named_in_the_environment(project: Path) -> None:
    (project / "images").mkdir()
    for number in range(len(PROMPTS)):
        side = 64 if number else 20
        Image.new("RGB", (side, side), (number, 0, 0)).save(project / "images" / f"{number}.png")
    rows = [f"{prompt},{number}.png" for number, prompt in enumerate(PROMPTS)]
    (project / "prompts.csv").write_text("\n".join(["prompt,image", *rows]))
    files = ("--prompts", "prompts.csv", "--images", "images")
    result = call(*files, "--base-env", "wan_i2v")
    assert result.exit_code == 0, result.output
    assert "row 2" in result.output
    assert "too small" in result.output
    assert configuration(project, "mydata")["catalog"]["raw_prompts"]["image_folder"] == "images"
    assert call(*files, "--base-env", "wan_i2v", "--overwrite", "--copy").exit_code == 0
    assert configuration(project, "mydata")["catalog"]["raw_prompts"]["image_folder"] == "data/01_raw/mydata/images"
    assert (project / "data" / "01_raw" / "mydata" / "images" / "5.png").is_file()
    for arguments, reason in (
        ((*files, "--env", "other"), "from text alone"),
        (("--prompts", "prompts.csv", "--base-env", "wan_i2v", "--env", "other"), "no folder of images is given"),
        (("--images", "images", "--videos", "clips", "--preferences", "preferences.csv"), "--images needs --prompts"),
        ((*files[:3], "none", "--base-env", "wan_i2v", "--env", "other"), "Correct the path given with --images"),
    ):
        rejected = call(*arguments)
        assert rejected.exit_code != 0
        assert reason in " ".join(rejected.output.split())


def test_columns_of_other_names(project: Path) -> None:
    (project / "prompts.csv").write_text("number,sentence\n" + "".join(f"1,{prompt}\n" for prompt in PROMPTS))
    (project / "preferences.csv").write_text("caption,left,right,winner\na cat,a.mp4,b.mp4,1\na dog,b.mp4,c.mp4,2\n")
    files = ("--prompts", "prompts.csv", "--videos", "clips", "--preferences", "preferences.csv")
    rejected = call(*files)
    assert "--prompt-column" in rejected.output
    assert "--column preference=COLUMN" in rejected.output
    names = {"prompt": "caption", "video_path_a": "left", "video_path_b": "right", "preference": "winner"}
    mapped = [part for name, column in names.items() for part in ("--column", f"{name}={column}")]
    labels = ("--label", "1=a", "--label", "2=b", "--prompt-column", "sentence")
    result = call(*files, *mapped, *labels)
    assert result.exit_code == 0, result.output
    assert "6 prompts" in result.output
    catalog = configuration(project, "mydata")["catalog"]
    made = KedroDataset.from_config("human_preferences", catalog["human_preferences"]).load()
    assert made["preference"].tolist() == ["a", "b"]
    assert made["prompt"].tolist() == ["a cat", "a dog"]
    assert KedroDataset.from_config("raw_prompts", catalog["raw_prompts"]).load()["prompt"].tolist() == list(PROMPTS)
    (project / "prompts.csv").write_text("".join(f"{part}\n" for part in ("n;sentence", "1;a cat", "2;a dog")))
    assert "the columns are 'n', 'sentence'" in call("--prompts", "prompts.csv", "--overwrite").output


def test_spellings_and_tables_of_other_programs(project: Path) -> None:
    """Prompts that differ by case, space or accent form are one prompt; UTF-16 and semicolons are no obstacle."""
    rows = [
        "deux chiens;a.mp4;b.mp4;b",
        "Une CAFÉ;a.mp4;b.mp4;a",
        "une  cafe\u0301 ;./a.mp4;c.mp4;b",
        "狗在草地上奔跑;b.mp4;c.mp4;tie",
    ]
    table = "\r\n".join(["Prompt;video_path_a;video_path_b;preference", *rows, ";;;", ""])
    (project / "preferences.csv").write_bytes(table.encode("utf-16"))
    result = call("--videos", "clips", "--preferences", "preferences.csv")
    assert result.exit_code == 0, result.output
    catalog = configuration(project, "mydata")["catalog"]
    preferences = KedroDataset.from_config("human_preferences", catalog["human_preferences"]).load()
    assert preferences["prompt"].tolist() == ["deux chiens", "Une CAFÉ", "Une CAFÉ", "狗在草地上奔跑"]
    clips = KedroDataset.from_config("preference_clips", catalog["preference_clips"]).load()
    assert clips.groupby("prompt")["file"].apply(sorted).to_dict() == {
        "Une CAFÉ": ["a.mp4", "b.mp4", "c.mp4"],
        "deux chiens": ["a.mp4", "b.mp4"],
        "狗在草地上奔跑": ["b.mp4", "c.mp4"],
    }
    # One bad row does not lose the file, as it will not when it is read.
    (project / "preferences.csv").write_bytes(table.replace(";tie", ";perhaps").encode("utf-16"))
    result = call("--videos", "clips", "--preferences", "preferences.csv", "--overwrite")
    assert result.exit_code == 0, result.output
    assert "row 5, field 'preference': the row is left out: unknown label 'perhaps'" in " ".join(result.output.split())
    # A name in place of a path stands for one clip, which is made for one prompt.
    names = "prompt,video_id_a,video_id_b,preference\na cat,a,b,a\nA  Cat,b,c,b\na dog,c,a,b\n"
    (project / "preferences.csv").write_text(names)
    rejected = call("--videos", "clips", "--preferences", "preferences.csv", "--overwrite")
    assert "clip 'a' occurs with 2 prompts, for instance 'a cat' and 'a dog'" in " ".join(rejected.output.split())
    assert "'A  Cat'" not in rejected.output


def test_clips_of_prompts_in_a_column_of_another_name(project: Path) -> None:
    rows = [f"{PROMPTS[number // 2]},{name}" for number, name in enumerate(("a", "b", "c", "d"))]
    (project / "clips" / "d.mp4").write_bytes((project / "clips" / "a.mp4").read_bytes())
    rows += [f"{prompt}," for prompt in PROMPTS[2:]]  # without clips
    (project / "prompts.csv").write_text("\n".join(["sentence,clip", *rows, ""]))
    result = call("--prompts", "prompts.csv", "--videos", "clips", "--prompt-column", "sentence")
    assert "4 clips of 2 prompts, 2 pairs to compare" in result.output, result.output
    entry = configuration(project, "mydata")["catalog"]["preference_clips"]
    assert KedroDataset.from_config("preference_clips", entry).load()["prompt"].nunique() == 2


def test_clips_that_nobody_has_compared(project: Path) -> None:
    (project / "prompts.csv").write_text("prompt,video_path\na cat,a.mp4\na cat,gone.mp4\na dog,b.mp4\n,c.mp4\n")
    rejected = call("--prompts", "prompts.csv", "--videos", "clips")
    assert rejected.exit_code == 1
    for part in (
        "there is no clip 'gone.mp4'",
        "row 5, field 'prompt': the prompt is empty",
        "fewer than two prompts",
        "none of 3 prompts passes the filter",
    ):
        assert part in rejected.output
    for number, name in enumerate(("a", "a", "b", "b", "broken")):
        target = project / "clips" / f"{PROMPTS[number // 2].upper()}-{number}.mp4"
        target.write_bytes((project / "clips" / f"{name}.mp4").read_bytes() if name != "broken" else b"broken")
    result = call("--prompts", "prompts.txt", "--videos", "clips")
    assert result.exit_code == 0, result.output
    assert "4 clips of 2 prompts, 2 pairs to compare" in result.output
    assert "the clip cannot be read" in result.output
    assert "3 clip(s) have no prompt, for instance a.mp4, b.mp4" in result.output
    assert "kedro annotate --env=mydata" in result.output
    catalog = configuration(project, "mydata")["catalog"]
    assert catalog["human_preferences"]["filepath"] == "data/01_raw/annotations/mydata/clips.jsonl"
    assert catalog["preference_clips"]["filepath"] == "prompts.txt"


def test_copies_and_files_outside_the_project(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (project / "clips").rename(tmp_path / "elsewhere" / "clips")
    outside = ("--videos", str(tmp_path / "elsewhere" / "clips"), "--preferences", "preferences.csv")
    named = call(*outside)
    assert named.exit_code == 0, named.output
    assert "outside the project" in named.output
    assert configuration(project, "mydata")["catalog"]["preference_videos"]["path"].startswith("/")
    copied = call(*outside, "--copy", "--overwrite")
    assert copied.exit_code == 0, copied.output
    catalog = configuration(project, "mydata")["catalog"]
    assert catalog["preference_videos"]["path"] == "data/01_raw/mydata/videos"
    assert sorted(path.name for path in (project / "data/01_raw/mydata/videos").iterdir()) == [
        "a.mp4",
        "b.mp4",
        "c.mp4",
    ]
    assert (project / catalog["human_preferences"]["filepath"]).is_file()


def test_too_little_to_learn_from(project: Path) -> None:
    path = project / "preferences.csv"
    for rows, expected in (
        (["a cat,a.mp4,b.mp4,tie", "a dog,a.mp4,b.mp4,tie"], "every preference is a tie"),
        (["a cat,a.mp4,b.mp4,a", "a cat,a.mp4,c.mp4,b"], "about one prompt"),
    ):
        path.write_text("\n".join(["prompt,video_path_a,video_path_b,preference", *rows]))
        assert expected in "\n".join(lines_of(check_preferences(path, project / "clips").findings))
    (project / "clips" / "b.mp4").write_bytes(b"broken")
    path.write_text("prompt,video_path_a,video_path_b,preference\na cat,a.mp4,b.mp4,a\na dog,a.mp4,c.mp4,b\n")
    check = check_preferences(path, project / "clips")
    text = "\n".join(lines_of(check.findings))
    assert "b.mp4: the clip cannot be read" in text
    assert "with 1 preference(s)" in text
    assert (check.pairs, check.clips) == (1, 2)
    path.write_text("prompt,video_id_a,video_id_b,preference\na cat,a,c,a\na dog,a,c,b\n")
    assert "clip 'a' occurs with 2 prompts" in "\n".join(lines_of(check_preferences(path, project / "clips").findings))


def test_a_good_checklist_has_no_findings_and_a_broken_file_one(project: Path) -> None:
    good = check_checklist(project / "checklist.yml")
    assert good.findings == []
    assert good.checklist is not None
    assert good.checklist.question_ids == ["fast", "smooth"]
    for text in ("name: [", "- 1", "", "name: x\nmodality: video\n"):
        (project / "checklist.yml").write_text(text)
        assert [finding.severity for finding in check_checklist(project / "checklist.yml").findings] == ["error"], text


def test_rows_with_the_same_problem_share_a_line() -> None:
    same = [Finding("warning", "it is odd", "look", Path("x.csv"), row, "prompt") for row in range(2, 14)]
    lines = lines_of([*same, Finding("error", "bad", "mend", Path("z.csv"))])
    assert lines == [
        "  error: file z.csv: bad. Mend.",
        "  warning: file x.csv, rows 2, 3, 4, 5, 6, 7, 8, 9 and 4 more, field 'prompt': it is odd. Look.",
    ]


def test_clips_of_several_generators(project: Path) -> None:
    (project / "filmed").mkdir()
    for name in "abc":
        (project / "filmed" / f"{name}.mp4").write_bytes((project / "clips" / f"{name}.mp4").read_bytes())
    rows = [f"{PROMPTS[number]},{name}.mp4" for number, name in enumerate("abc")]
    (project / "filmed" / "prompts.csv").write_text("\n".join(["prompt,video_path", *rows, ""]))
    (project / "sora").mkdir()
    named = project / "sora" / f"{PROMPTS[0]}.mp4"
    named.write_bytes((project / "clips" / "a.mp4").read_bytes())
    given = ("--made-by", "filmed=filmed", "--made-by", "sora=sora")
    result = call("--prompts", "prompts.txt", *given)
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "clips of diffusion, flow, which preference_generation makes" in words
    assert "yours of filmed: filmed (3 clips of 3 prompts)" in words
    assert "yours of sora: sora (1 clips of 1 prompts)" in words
    assert "kedro run --env=mydata --pipelines=prompt_filtering,preference_generation" in words
    catalog = configuration(project, "mydata")["catalog"]
    assert catalog["human_preferences"]["filepath"] == "data/01_raw/annotations/mydata/generators.jsonl"
    clips = KedroDataset.from_config("preference_clips", catalog["preference_clips"])
    assert not clips.exists(), "nothing is made yet"
    own = {name: one["filepath"] for name, one in catalog["preference_videos"]["given"].items()}
    assert own == {"filmed": "filmed/prompts.csv", "sora": "prompts.txt"}

    copied = call("--prompts", "prompts.txt", *given, "--copy", "--overwrite")
    assert copied.exit_code == 0, copied.output
    assert configuration(project, "mydata")["catalog"]["preference_clips"]["given"]["filmed"] == {
        "filepath": "data/01_raw/mydata/filmed/prompts.csv",
        "videos": {"path": "data/01_raw/mydata/filmed"},
    }
    assert (project / "data/01_raw/mydata/filmed/a.mp4").is_file()
    for arguments, expected in (
        (("--generators",), "need --prompts"),
        (("--generators", "--prompts", "prompts.txt", "--videos", "clips"), "replace --videos"),
        (("--made-by", "filmed", "--prompts", "prompts.txt", "--check"), "NAME=FOLDER"),
        (("--made-by", "filmed=gone", "--prompts", "prompts.txt", "--check"), "Correct the path given with --made-by"),
        (("--generators", "--prompts", "prompts.txt", "--base-env", "image", "--check"), "fewer are named"),
    ):
        assert expected in " ".join(call(*arguments).output.replace("│", " ").split())
