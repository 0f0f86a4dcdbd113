"""The whole pipeline gives the same files in every run, wherever its nodes run, and MLflow has one run of it."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from tests.end_to_end.conftest import copy_project, data_files, run_small

pytestmark = pytest.mark.slow
pytest.importorskip("ray")

# Processes that are kept from node to node spare the test their starts.
PLACES = {
    "models and training in Ray tasks": (
        "routes.gpu.backend=ray,routes.gpu.fresh_worker=false,routes.train.backend=ray,routes.train.fresh_worker=false,"
        "ray.num_cpus=2,ray.num_gpus=0"
    ),
    "two Ray workers inside nodes, training under torch's elastic launch": (
        "execution.workers=2,execution.fresh_workers=false,routes.train.backend=torchrun,ray.num_cpus=2,ray.num_gpus=0"
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_files_are_the_same_and_mlflow_has_one_run(small_run: Path, tmp_path: Path, place: str) -> None:
    folder = copy_project(tmp_path / "project")
    result = run_small(folder, f"--runner-params={PLACES[place]}")
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    here, there = data_files(small_run), data_files(folder)
    assert set(here) == set(there)
    assert [name for name in here if here[name] != there[name]] == []

    with sqlite3.connect(folder / "mlflow.db") as connection:
        runs = connection.execute("select name, status from runs").fetchall()
        assert {status for _, status in runs} == {"FINISHED"}
        assert sorted(name.split()[0] for name, _ in runs)[:2] == ["dpo", "mpo"]
        assert len(runs) == 3
        curve = connection.execute(
            "select step, timestamp from metrics where key = 'mpo/loss' order by step"
        ).fetchall()
    assert [step for step, _ in curve] == list(range(1, 7))
    # Each step has the time at which it was done, which the table that a node leaves at its end does not tell.
    times = [told for _, told in curve]
    assert times == sorted(set(times)), "the curve was brought while its node ran"
    for node in ("video_generation.generate_videos", "checklist_inference.answer_checklist", "evaluation.write_report"):
        assert re.search(rf"^  {re.escape(node)} +\d+\.\d", result.stdout, re.MULTILINE), result.stdout
