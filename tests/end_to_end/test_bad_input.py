"""Bad input stops with one clear message before work is lost; a bad clip is set aside and the rest continues."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
from tests.end_to_end.conftest import SMALL, copy_project, kedro

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project(tmp_path / "project")


def rejected_output(project: Path, *arguments: str) -> str:
    """Run, expect a refusal, and return what the user reads."""
    result = kedro(project, "run", *arguments)
    output = " ".join((result.stdout + result.stderr).split())
    assert result.returncode != 0, output[-3000:]
    assert "Traceback" not in output, output[-3000:]
    return output


def test_a_mistyped_parameter_stops_before_any_work(project: Path) -> None:
    output = rejected_output(project, "--pipeline=mpo_dpo", "--params=dpo_training.training.betta=3")
    assert "betta" in output
    assert not (project / "data/03_primary").exists()
    assert not (project / "data/02_intermediate").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "prompts.csv"),
        (b"words,source\na red ball,x\n", "prompt"),
    ],
)
def test_unusable_prompt_files(project: Path, content: bytes, expected: str) -> None:
    (project / "data/01_raw/prompts.csv").write_bytes(content)
    output = rejected_output(project, "--pipeline=prompt_filtering")
    assert expected in output
    assert "prompts.csv" in output


def test_a_checklist_with_a_repeated_question(project: Path) -> None:
    path = project / "conf/base/checklist.yml"
    path.write_text(path.read_text().replace("id: shape_matches", "id: colour_matches"))
    steps = ["video_generation.index_preference_videos", "checklist_inference.answer_checklist_on_preferences"]
    output = rejected_output(project, "--pipeline=mpo_dpo", f"--nodes={','.join(steps)}")
    assert "colour_matches" in output
    assert "checklist.yml" in output


def test_preferences_about_unknown_clips(project: Path) -> None:
    path = project / "data/01_raw/micro_world/human_preferences.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[0, "video_id_a"] = "0000000000000000"
    table.to_csv(path, index=False)
    output = rejected_output(project, "--pipeline=mpo_dpo", "--to-nodes=weight_regression.label_pairs")
    assert "0000000000000000" in output


def test_a_clip_that_does_not_decode_is_set_aside(project: Path) -> None:
    folder = project / "data/01_raw/micro_world/preference_videos"
    broken = sorted(folder.glob("*.mp4"))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    steps = [
        "video_generation.index_preference_videos",
        "checklist_inference.answer_checklist_on_preferences",
        "checklist_inference.collect_preference_answers",
    ]
    result = kedro(project, "run", "--pipeline=mpo_dpo", f"--nodes={','.join(steps)}")
    output = " ".join((result.stdout + result.stderr).split())
    assert result.returncode == 0, output[-3000:]
    index = pd.read_parquet(project / "data/02_intermediate/preference_video_index.parquet").set_index("video_id")
    row = index.loc[broken.stem]
    assert row["status"] == "failed"
    assert row["error"]
    assert (index.drop(index=broken.stem)["status"] == "ok").all()
    answers = pd.read_parquet(project / "data/04_feature/preference_answers.parquet")
    assert broken.stem not in set(answers["video_id"])
    assert answers["video_id"].nunique() == len(index) - 1
    assert "1 of " in output


def test_a_report_joins_no_policies_of_before(small_run: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(small_run, project)
    parts = "--pipelines=weight_regression,pair_selection"
    again = kedro(project, "run", parts, f"--params={SMALL},weight_regression.seed=5")
    assert again.returncode == 0, again.stderr
    report = project / "data/08_reporting/evaluation_report.html"
    before = report.read_bytes()
    output = rejected_output(project, "--pipeline=evaluation", f"--params={SMALL}")
    assert "results that this run combines do not belong together" in output
    assert "training_pairs was made from another data/05_model_input/preference_pairs_dpo.parquet" in output
    assert (
        "--pipeline=mpo_dpo --from-nodes=dpo_training.describe_checkpoint_reward,dpo_training.join_training_pairs"
        in output
    )
    assert report.read_bytes() == before
