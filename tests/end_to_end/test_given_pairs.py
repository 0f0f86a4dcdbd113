"""From two folders of clips to a trained policy, the report, and clips that people can compare; no judge has a part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tests.end_to_end.conftest import ROOT, copy_project, kedro

from vr_pipeline.annotation.choice import Selection
from vr_pipeline.annotation.offer import make_offer, make_study
from vr_pipeline.project.folder import project_context

PAIRS = 24
SMALL = (
    "generator.batch_size=8,dpo_training.training.steps=4,dpo_training.training.batch_size=4,"
    "dpo_training.training.checkpoint_every=2,dpo_training.generator_batch_size=8,"
    "evaluation.videos_per_prompt=1,evaluation.report.num_prompts=2"
)


def make_folders(folder: Path) -> None:
    """Decided pairs of the shipped preferences as w/ and l/; one loser is missing, one winner is damaged."""
    raw = ROOT / "data" / "01_raw" / "micro_world"
    table = pd.read_csv(raw / "human_preferences.csv")
    captions = ["file,prompt"]
    for number, row in enumerate(table[table["preference"] != "tie"].head(PAIRS).itertuples()):
        clips = [row.video_id_a, row.video_id_b]
        for side, video in zip("wl", clips if row.preference == "a" else clips[::-1], strict=True):
            (folder / side).mkdir(parents=True, exist_ok=True)
            shutil.copy(raw / "preference_videos" / f"{video}.mp4", folder / side / f"{number:03d}.mp4")
        captions.append(f"{number:03d}.mp4,{row.prompt}")
    (folder / "l" / "000.mp4").unlink()
    damaged = folder / "w" / "001.mp4"
    damaged.write_bytes(damaged.read_bytes()[:200])
    (folder / "captions.csv").write_text("\n".join(captions))


def test_pairs_that_are_given_are_trained_on_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = copy_project(tmp_path / "project")
    make_folders(project / "mine")
    made = kedro(project, "init-data", "--pairs", "mine", "--env", "mine")
    assert made.returncode == 0, made.stdout + made.stderr
    for part in ("read as folders", f"{PAIRS} pairs: {PAIRS - 2} usable, 0 ties dropped, 2 set aside", "l/000.mp4"):
        assert part in made.stdout, made.stdout
    done = kedro(project, "run", "--env=mine", "--pipeline=given_dpo", f"--params={SMALL}")
    assert done.returncode == 0, done.stdout + done.stderr
    data = project / "data" / "mine"
    fates = pd.read_parquet(data / "03_primary/given_pair_decisions.parquet")
    assert fates["status"].value_counts().to_dict() == {"kept": PAIRS - 2, "clip_failed": 2}
    clips = pd.read_parquet(data / "03_primary/given_clips.parquet")
    assert set(clips.loc[clips["status"] == "ok", "rule"]) == {"reduced from 32 x 32 to 16 x 16"}
    log = pd.read_parquet(data / "06_models/training_log_given.parquet")
    assert log.dropna(subset="held_out_accuracy")["step"].tolist() == [2, 4]
    assert (data / "06_models/policy_given").is_dir()
    page = (data / "08_reporting/evaluation_report.html").read_text()
    for part in ("Clips side by side", "Given pairs", "Held-out accuracy", "kedro annotate --policies original,given"):
        assert part in page, part
    metrics = json.loads((data / "08_reporting/evaluation_metrics.json").read_text())
    assert metrics["policies"] == {"original": {}, "given": {}}
    assert {path.name for path in (data / "04_feature").iterdir()} == {"reward_description.json"}, "a judge was asked"
    monkeypatch.chdir(project)
    offer = make_offer(
        project_context("mine").catalog,
        make_study(None, "generated", "original,given"),
        Selection("random", 0, 10, 10),
    )
    assert offer.pairs
    assert {pair.first.generator for pair in offer.pairs} | {pair.second.generator for pair in offer.pairs} == {
        *("original", "given"),
    }
