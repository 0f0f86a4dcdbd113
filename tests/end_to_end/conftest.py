"""Runs of the whole embedded default in scratch copies of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("conf", "pyproject.toml", "checklists", "data/01_raw", "data/06_models/micro_world")
SMALL = (
    "prompt_filtering.diversity.count=24,prompt_filtering.split.validation_fraction=0.15,"
    "video_generation.videos_per_prompt=8,generator.batch_size=32,"
    "dpo_training.generator_batch_size=16,dpo_training.validation.videos_per_prompt=2,"
    "dpo_training.training.steps=6,dpo_training.training.batch_size=4,dpo_training.training.checkpoint_every=2,"
    "evaluation.videos_per_prompt=2,evaluation.report.num_prompts=2,"
    "weight_regression.bootstrap_samples=20"
)

SMALLEST = (
    f"{SMALL},generator.num_inference_steps=4,video_generation.videos_per_prompt=4,"
    "dpo_training.validation.videos_per_prompt=1,dpo_training.training.steps=2,evaluation.videos_per_prompt=1"
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


def run_once(
    factory: pytest.TempPathFactory, name: str, run: Callable[[Path], subprocess.CompletedProcess[str]]
) -> tuple[Path, str]:
    """A run in a project of its own, by the first process of the tests that asks; the others wait and get it too.

    Args:
        factory: knows the folder of this session of tests.
        name: of the run.
        run: runs something in a folder.

    Returns:
        the project's folder, which tests read and do not change, and what the run printed.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    told = base / f"{name}.json"
    with FileLock(base / f"{name}.lock"):
        if not told.exists():
            result = run(copy_project(base / name))
            told.write_text(json.dumps([result.returncode, result.stdout + result.stderr]))
    code, output = json.loads(told.read_text())
    assert code == 0, output[-6000:]
    return base / name, output


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run with the shipped settings: its folder and what it printed."""
    return run_once(tmp_path_factory, "demo", lambda folder: kedro(folder, "run", "--pipeline=mpo_dpo"))


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one undisturbed run of a smaller configuration."""
    return run_once(tmp_path_factory, "small", run_small)[0]


@pytest.fixture(scope="session")
def reward_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run of videoreward_dpo, the smallest there is: its folder and what it printed."""
    arguments = ("run", "--pipeline=videoreward_dpo", f"--params={SMALLEST}")
    return run_once(tmp_path_factory, "videoreward", lambda folder: kedro(folder, *arguments))
