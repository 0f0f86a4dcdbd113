"""init-data --pairs: every form, every problem at once, and environments that load."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from kedro.io import AbstractDataset as KedroDataset
from PIL import Image
from tests.end_to_end.conftest import copy_project

from vr_pipeline.cli import cli
from vr_pipeline.own_data.plan import configuration
from vr_pipeline.pairs.config import GivenPairsParameters
from vr_pipeline.pairs.given import decide_pairs
from vr_pipeline.video.write import write_video

PROMPTS = ("red ball moves left on black", "blue ring moves left on white", "green ball moves right on black")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("shipped") / "project")


@pytest.fixture
def project(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with six clips, whose shipped part is shared between tests."""
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "src").mkdir()
    shutil.copytree(shipped / "conf", folder / "conf")
    shutil.copy(shipped / "pyproject.toml", folder)
    (folder / "data" / "06_models").symlink_to(shipped / "data" / "06_models")
    random = np.random.default_rng(0)
    for name in "abcdef":
        pixels = random.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
        write_video(folder / "clips" / f"{name}.mp4", pixels, fps=8, codec="libx264rgb", crf=0)
    monkeypatch.chdir(folder)
    return folder


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, ["init-data", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def plain(result: Result) -> str:
    return " ".join(result.output.split())


def loaded(catalog: Any, name: str) -> Any:
    return KedroDataset.from_config(name, catalog[name]).load()


ROWS = [(prompt, f"clips/{'ace'[i]}.mp4", f"clips/{'bdf'[i]}.mp4") for i, prompt in enumerate(PROMPTS)]


def as_table(folder: Path) -> str:
    lines = [f"{prompt},{winner},{loser}" for prompt, winner, loser in ROWS]
    (folder / "pairs.csv").write_text("\n".join(["prompt,winner,loser", *lines]))
    return "pairs.csv"


def as_video_dpo(folder: Path) -> str:
    entries = [{"video1": w, "video2": lost, "frame_caption": p, "score": 1.0} for p, w, lost in ROWS]
    (folder / "pair.json").write_text(json.dumps(entries))
    return "pair.json"


def as_unified_reward(folder: Path) -> str:
    entries = [{"id": i, "caption": p, "chosen": w, "rejected": lost} for i, (p, w, lost) in enumerate(ROWS)]
    (folder / "list.json").write_text(json.dumps(entries))
    return "list.json"


def as_folders(folder: Path) -> str:
    for number, (prompt, winner, loser) in enumerate(ROWS):
        for side, file in (("w", winner), ("l", loser)):
            (folder / "two" / side).mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / file, folder / "two" / side / f"{number}.mp4")
        (folder / "two" / "w" / f"{number}.txt").write_text(prompt)
    return "two"


def as_journal(folder: Path) -> str:
    lines: list[dict[str, Any]] = [{"event": "study", "version": 1, "study": "clips", "source": "clips"}]
    for number, (prompt, winner, loser) in enumerate(ROWS):
        lines.append(
            {
                **{"event": "label", "label": f"label{number:04d}", "pair": f"pair{number}", "prompt_id": f"p{number}"},
                **{"prompt": prompt, "criterion": "overall", "choice": "right", "left": loser, "right": winner},
                **{"left_file": loser, "right_file": winner, "left_generator": "", "right_generator": ""},
                **{"annotator": "x", "seconds": 1, "at": "2026-01-01T00:00:00Z", "order": "random", "seed": 0},
            }
        )
    (folder / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "journal.jsonl"


FORMS = {
    "winner_loser": as_table,
    "video_dpo": as_video_dpo,
    "unified_reward": as_unified_reward,
    "folders": as_folders,
    "annotations": as_journal,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_makes_an_environment_of_the_same_pairs(project: Path, form: str) -> None:
    result = call("--pairs", FORMS[form](project))
    assert result.exit_code == 0, result.output
    assert f"read as {form}" in result.output
    assert "3 rows, 3 pairs: 3 usable, 0 ties dropped, 0 set aside" in plain(result)
    for command in ("run --env=mydata --pipeline=given_dpo", "annotate --env=mydata --policies original,given"):
        assert f"kedro {command}" in result.output
    written = configuration(project, "mydata")
    folder, table = (loaded(written["catalog"], name) for name in ("given_videos", "given_pairs"))
    assert sorted(decide_pairs(table)["prompt"]) == sorted(PROMPTS)
    wins = table["preference"] == "a"
    for prompt, winner, _ in ROWS:
        row = table[table["prompt"] == prompt].iloc[0]
        chosen = row["video_path_a"] if wins[row.name] else row["video_path_b"]
        assert folder[chosen].read_bytes() == (project / winner).read_bytes()
    own = written["parameters"]
    assert own["dpo_training"]["validation"] is None
    assert set(own["reward_model"].values()) == {None}, "a reward of the environment below"
    GivenPairsParameters.model_validate(own["given_pairs"])


def test_images_within_a_table_are_taken_out(project: Path) -> None:
    def picture(value: int) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(np.full((32, 48, 3), value, dtype=np.uint8)).save(buffer, "PNG")
        return buffer.getvalue()

    rows = [
        {
            "caption": f"a cat {i}",
            "jpg_0": picture(i),
            "jpg_1": picture(100 + i),
            "label_0": label,
            "label_1": 1 - label,
        }
        for i, label in enumerate([1.0, 0.0, 0.5, 1.0])
    ]
    pd.DataFrame(rows).to_parquet(project / "pick.parquet")
    checked = call("--pairs", "pick.parquet", "--base-env", "image", "--check")
    assert checked.exit_code == 0, checked.output
    assert not (project / "data" / "01_raw").exists()
    result = call("--pairs", "pick.parquet", "--base-env", "image", "--fit", "pad")
    assert result.exit_code == 0, result.output
    assert "4 pairs: 3 usable, 1 ties dropped" in plain(result)
    assert "padded with black" in result.output
    assert len(list((project / "data/01_raw/mydata/given_clips").rglob("*.png"))) == 8
    written = configuration(project, "mydata")
    assert written["parameters"]["given_pairs"]["fit"]["shape"] == "pad"
    assert decide_pairs(loaded(written["catalog"], "given_pairs"))["status"].value_counts().to_dict() == {
        "kept": 3,
        "tie": 1,
    }


def test_problems_come_with_their_rows_and_the_rest_goes_on(project: Path) -> None:
    (project / "clips" / "e.mp4").write_bytes(b"\0" * 50)
    rows = [
        *(f"{PROMPTS[0]},clips/a.mp4,clips/b.mp4,x", f"{PROMPTS[0]},clips/b.mp4,clips/a.mp4,y"),
        *(f"{PROMPTS[1]},clips/c.mp4,clips/d.mp4,x", f"{PROMPTS[1]},clips/c.mp4,clips/gone.mp4,x"),
        *(f"{PROMPTS[2]},clips/e.mp4,clips/f.mp4,x", f"{PROMPTS[2]},clips/f.mp4,clips/f.mp4,x"),
    ]
    (project / "pairs.csv").write_text("\n".join(["prompt,winner,loser,annotator", *rows]))
    result = call("--pairs", "pairs.csv", "--check")
    assert result.exit_code == 0, result.output
    text = plain(result)
    for part in (
        "pairs.csv, row 7, field 'loser': the row is left out: a clip is compared with itself",
        "pairs.csv, row 5, field 'loser': there is no clip 'clips/gone.mp4'",
        "pairs.csv, rows 2, 3: the annotators contradict each other",
        "e.mp4: the clip cannot be used",
        "4 pairs: 1 usable, 1 ties dropped, 2 set aside",
        "nothing was written",
    ):
        assert part in text, f"{part}\nis not in\n{text}"
    assert not (project / "conf" / "mydata").exists()
    (project / "pairs.csv").write_text("prompt,winner,loser\na cat,clips/gone.mp4,clips/lost.mp4\n")
    lost = call("--pairs", "pairs.csv")
    assert lost.exit_code == 1
    assert "none of the clips exists, for instance 'clips/gone.mp4'" in plain(lost)


def test_clips_in_several_folders_are_copied_together(project: Path) -> None:
    (project / "more").mkdir()
    shutil.move(project / "clips" / "b.mp4", project / "more" / "b.mp4")
    lines = ["prompt,winner,loser", f"{PROMPTS[0]},clips/a.mp4,more/b.mp4", f"{PROMPTS[1]},clips/c.mp4,clips/d.mp4"]
    (project / "pairs.csv").write_text("\n".join(lines))
    result = call("--pairs", "pairs.csv")
    assert result.exit_code == 0, result.output
    assert "are copied" in result.output
    catalog = configuration(project, "mydata")["catalog"]
    assert catalog["given_videos"]["path"] == "data/01_raw/mydata/given_clips"
    assert (project / "data/01_raw/mydata/given_clips/more/b.mp4").is_file()
    assert decide_pairs(loaded(catalog, "given_pairs"))["status"].tolist() == ["kept", "kept"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--pairs", "none.csv"), "Correct the path given with --pairs"),
        (("--pairs", "pairs.csv", "--prompts", "pairs.csv"), "combine it only with --videos"),
        (("--pairs", "pairs.csv", "--pairs-format", "odd"), "unknown format 'odd'"),
        (("--pairs", "pairs.csv", "--videos", "none"), "folder of clips does not exist"),
        (("--pairs", "clips"), "folder 'w' is missing"),
        (("--fit", "pad", "--videos", "clips"), "need --pairs"),
    ],
)
def test_options_that_do_not_fit(project: Path, arguments: tuple[str, ...], expected: str) -> None:
    as_table(project)
    result = call(*arguments)
    assert result.exit_code != 0
    assert expected in plain(result)
    assert not (project / "conf" / "mydata").exists()


def test_clips_elsewhere_and_columns_of_other_names(project: Path) -> None:
    shutil.move(project / "clips", project.parent / "elsewhere")
    (project / "pairs.csv").write_text("text,good,bad\n" + "".join(f"{p},{w[6:]},{lost[6:]}\n" for p, w, lost in ROWS))
    columns = [part for name in ("prompt=text", "winner=good", "loser=bad") for part in ("--column", name)]
    files = ("--pairs", "pairs.csv", "--videos", str(project.parent / "elsewhere"), "--pairs-format", "winner_loser")
    result = call(*files, *columns, "--copy")
    assert result.exit_code == 0, result.output
    assert "pairs: 3 usable" in plain(result)
    catalog = configuration(project, "mydata")["catalog"]
    assert catalog["given_pairs"]["filepath"] == "data/01_raw/mydata/given_pairs.csv"
    shutil.rmtree(project.parent / "elsewhere")
    assert decide_pairs(loaded(catalog, "given_pairs"))["status"].tolist() == ["kept"] * 3
    assert len(list((project / "data/01_raw/mydata/given_clips").glob("*.mp4"))) == 6
