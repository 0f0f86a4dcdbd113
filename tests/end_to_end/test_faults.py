"""The whole run is killed again and again; what it makes in the end is what an undisturbed run makes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.end_to_end.conftest import ROOT, SMALL, copy_project, data_files, run_small

pytestmark = pytest.mark.slow


def generating(folder: Path) -> bool:
    """Some clips are made, a whole batch among them, others are not."""
    clips = folder / "data/03_primary/videos"
    return len(list(clips.glob("*.mp4"))) > 40 and not (clips / "manifest.json").exists()


def judging(folder: Path) -> bool:
    """Some answers are there, others are not."""
    shards = folder / "data/04_feature/answer_shards"
    return (
        any(path.stat().st_size for path in shards.glob("items.partial*")) and not (shards / "manifest.json").exists()
    )


def training(folder: Path) -> bool:
    """The first policy is being trained and has a checkpoint."""
    return any((folder / "data/06_models/checkpoints").glob("[!.]*.safetensors"))


def training_the_second(folder: Path) -> bool:
    """The second policy is being trained, for the first time."""
    models = folder / "data/06_models"
    return (models / "policy_dpo").exists() and not (models / "policy_mpo").exists()


def items(folder: Path) -> dict[Path, int]:
    """When each clip was written; not files of which the writing had begun."""
    return {path: path.stat().st_mtime_ns for path in (folder / "data").glob("03_primary/videos/[!.]*.mp4")}


def kill_when(moment: Callable[[Path], bool], folder: Path, how: signal.Signals) -> int:
    """Start a run and end it at the first moment of its kind; returns the exit code."""
    command = [sys.executable, "-m", "kedro", "run", "--pipeline=mpo_dpo", f"--params={SMALL}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with (folder / "killed.log").open("a") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            end = time.monotonic() + 300
            while not moment(folder):
                assert process.poll() is None, (folder / "killed.log").read_text()[-3000:]
                assert time.monotonic() < end, "the moment did not come"
                time.sleep(0.01)
            process.send_signal(how)
            return process.wait(timeout=30)
        finally:
            process.kill()
            process.wait()


def test_kills_change_nothing_in_the_end(small_run: Path, tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "project")
    made: dict[Path, int] = {}
    for moment in (generating, judging, training):
        assert kill_when(moment, folder, signal.SIGKILL) == -signal.SIGKILL
        # What had been committed before a kill is not made again; the last item may have been written just then.
        assert len([path for path, when in made.items() if path.stat().st_mtime_ns != when]) <= 1
        made = items(folder)
    assert kill_when(training_the_second, folder, signal.SIGINT) == 130
    assert "resumes after step" in (folder / "killed.log").read_text()
    assert "To resume where it stopped" in (folder / "killed.log").read_text()
    result = run_small(folder)
    assert result.returncode == 0, result.stderr[-3000:]
    # The first policy, which had been trained, was not trained again.
    assert (result.stdout + result.stderr).count("was finished before") == 1
    undisturbed, killed = data_files(small_run), data_files(folder)
    assert set(killed) == set(undisturbed)
    assert [name for name in killed if killed[name] != undisturbed[name]] == []
