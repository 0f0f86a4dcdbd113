"""Rounds of online training: a whole run, and one that is killed in a later round and resumes to the same files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from tests.end_to_end.conftest import ROOT, copy_project, data_files, kedro, run_once

SETTINGS = (
    "prompt_filtering.diversity.count=24,prompt_filtering.split.validation_fraction=0.15,"
    "weight_regression.bootstrap_samples=20,generator.batch_size=32,generator.num_inference_steps=4,"
    "dpo_training.generator_batch_size=16,dpo_training.training.batch_size=4,"
    "online_mpo.rounds=2,online_mpo.videos_per_prompt=8,online_mpo.prompts_per_round=6,"
    "online_mpo.prompts_by=uncertainty,online_mpo.replay=1.0,online_mpo.stop_without_gain=false,"
    "online_mpo.training.steps=6,online_mpo.training.warmup_steps=0,online_mpo.training.checkpoint_every=2,"
    "online_mpo.validation.videos_per_prompt=1,evaluation.videos_per_prompt=1,evaluation.report.num_prompts=2"
)
OWN = ("online/", "round_1", "round_2", "checkpoints", "validation", "evaluation", "online_rounds", "headline")
"""Parts of the paths that the rounds and the evaluation write."""


@pytest.fixture(scope="session")
def online_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one undisturbed run with two rounds."""
    arguments = ("run", "--pipeline=online_mpo", f"--params={SETTINGS}")
    return run_once(tmp_path_factory, "online", lambda folder: kedro(folder, *arguments))[0]


def of_rounds(name: str) -> bool:
    return any(part in name for part in OWN)


def test_lineage_names_the_round_of_every_clip_and_pair(online_run: Path) -> None:
    data = online_run / "data"
    indexes = [pd.read_parquet(data / f"03_primary/online/video_index_round_{n}.parquet") for n in (1, 2)]
    pairs = [pd.read_parquet(data / f"05_model_input/online/training_pairs_round_{n}.parquet") for n in (1, 2)]
    for number, index in enumerate(indexes, start=1):
        assert set(index["round"]) == {number}
        assert len(index) == 6 * 8
    # Each round has seeds of its own, and in the second one the prompts that the first did not see.
    assert not set(indexes[0]["seed"]) & set(indexes[1]["seed"])
    assert not set(indexes[0]["prompt_id"]) & set(indexes[1]["prompt_id"])
    assert indexes[0]["generator"].iloc[0] != indexes[1]["generator"].iloc[0]
    of_round = {clip: n for n, index in enumerate(indexes, start=1) for clip in index["video_id"]}
    for number, table in enumerate(pairs, start=1):
        assert set(table["round"]) == set(range(1, number + 1))
        for side in ("winner", "loser"):
            assert table[f"{side}_video_id"].map(of_round).tolist() == table["round"].tolist()
    rounds = json.loads((data / "08_reporting/online_rounds.json").read_text())["rounds"]
    new = int((pairs[1]["round"] == 2).sum())
    assert rounds["2"]["new_pairs"] == new
    assert rounds["2"]["replayed_pairs"] == len(pairs[1]) - new == min(new, len(pairs[0]))
    configuration = json.loads((data / "06_models/policy_round_2/adapter_config.json").read_text())
    kept = rounds["2"]["policy_of"]
    assert configuration["provenance"].get("round", 0) == kept
    assert (data / "08_reporting/evaluation_report.html").is_file()


def test_a_killed_round_resumes_to_the_same_files(online_run: Path, tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project")
    shutil.rmtree(folder / "data")
    # What comes before the rounds is kept.
    shutil.copytree(online_run / "data", folder / "data")
    for path in sorted((folder / "data").rglob("*"), reverse=True):
        if path.is_file() and of_rounds(str(path.relative_to(folder))):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    arguments = ["run", "--pipelines=online_round_1,online_round_2", f"--params={SETTINGS}"]
    second = folder / "data/06_models/policy_round_1"
    states = folder / "data/06_models/checkpoints"
    with (folder / "killed.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "kedro", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        end = time.monotonic() + 300
        while not (second.exists() and len(list(states.glob("*.safetensors"))) >= 2):
            assert process.poll() is None, (folder / "killed.log").read_text()[-3000:]
            assert time.monotonic() < end, "the second training did not start"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
    result = kedro(folder, *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    undisturbed, killed = data_files(online_run), data_files(folder)
    compared = [name for name in undisturbed if of_rounds(name) and "evaluation" not in name and "headline" not in name]
    assert len(compared) > 20
    assert [name for name in compared if killed.get(name) != undisturbed[name]] == []
