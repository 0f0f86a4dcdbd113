"""Runs of the whole embedded default in scratch copies of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("conf", "pyproject.toml", "checklists", "data/01_raw", "data/06_models/micro_world")
SMALL = (
    "video_generation.videos_per_prompt=8,video_generation.generator.batch_size=32,"
    "dpo_training.generator.batch_size=32,evaluation.generator.batch_size=32,"
    "dpo_training.training.steps=6,dpo_training.training.batch_size=4,dpo_training.training.checkpoint_every=2,"
    "evaluation.videos_per_prompt=2,weight_regression.bootstrap_samples=20"
)


def copy_project(target: Path) -> Path:
    """What the repository ships, without results."""
    (target / "src").mkdir(parents=True, exist_ok=True)
    for part in SHIPPED:
        source = ROOT / part
        if not source.exists():
            continue
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target / part)
    return target


def kedro(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kedro in a project folder."""
    return subprocess.run(
        [sys.executable, "-m", "kedro", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def run_small(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """The whole pipeline with few clips and steps."""
    return kedro(folder, "run", "--pipeline=mpo_dpo", f"--params={SMALL}", *more)


def data_files(folder: Path) -> dict[str, bytes]:
    """Everything under data/ that must be the same in every run.

    Not locks, which are empty and stay, nor the lines beside the report that name its MLflow run.
    """
    files = (path for path in (folder / "data").rglob("*") if path.is_file())
    found = (path for path in files if path.suffix != ".lock" and path.name != "evaluation_report_run.html")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run with the shipped settings: its folder and what it printed."""
    folder = copy_project(tmp_path_factory.mktemp("demo"))
    result = kedro(folder, "run", "--pipeline=mpo_dpo")
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-6000:]
    return folder, output


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of a smaller configuration, each from a clean tree."""
    folders = []
    for number in range(2):
        folder = copy_project(tmp_path_factory.mktemp(f"small{number}"))
        result = run_small(folder)
        assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]
        folders.append(folder)
    return folders
