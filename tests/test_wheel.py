"""The wheel: its version is the tag, it has everything, and the packaged project runs where nothing else is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from vr_pipeline.__main__ import RunIsUsual

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    *("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", ".telemetry"),
    *(".gitignore", ".dvcignore"),
    *("src", "conf", "notebooks", "data/01_raw", "data/06_models/micro_world"),
)

pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def build(folder: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", cwd=folder)
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the sources under a tag, as for a release."""
    folder = tmp_path_factory.mktemp("sources")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.lock")
    for name in SOURCES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, folder / name)
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", "--force", cwd=folder)
    run(*git, "commit", "--quiet", "--no-verify", "-m", "sources", cwd=folder)
    run("git", "tag", "v7.8.9", cwd=folder)
    return build(folder)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the package as the wheel has it; its dependencies are those of the test's environment."""
    folder = tmp_path_factory.mktemp("installed")
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"),
        *("--target", str(folder), str(wheel)),
        cwd=folder,
    )
    return folder


def test_the_version_is_the_tag_and_the_files_are_those_of_the_project(wheel):
    assert wheel.name == "vr_pipeline-7.8.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [entries] = [name for name in names if name.endswith("entry_points.txt")]
        assert "vr-pipeline = vr_pipeline.__main__:main" in archive.read(entries).decode()
    inside = {name.removeprefix("vr_pipeline/_project/") for name in names if "/_project/" in name}
    assert "conf/base/checklist.yml" in inside
    assert "data/01_raw/prompts.csv" in inside
    assert {".gitignore", ".dvcignore"} <= inside
    for model in ("judge", "videoreward"):
        assert any(name.startswith(f"data/06_models/micro_world/{model}/") for name in inside)
    assert any(name.startswith("vr_pipeline/evaluation/report/templates/") for name in names)
    # Every module and every file beside the modules, and nothing personal.
    tracked = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "vr_pipeline").rglob("*.py")}
    assert tracked <= set(names)
    kinds = (".html", ".j2", ".css", ".js", ".yml", ".txt")
    beside = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "vr_pipeline").rglob("*")
        if path.suffix in kinds and "_project" not in path.parts
    }
    assert beside <= set(names), sorted(beside - set(names))
    assert not any("/local/" in name or "/data/03" in name for name in names)


def test_without_git_there_is_still_a_version():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^fallback_version = "\d+\.\d+\.\d+"$', text, re.MULTILINE)
    assert 'dynamic = ["version"]' in text


def test_the_packaged_project_is_made_and_runs(installed, tmp_path):
    environment = {"PYTHONPATH": str(installed), "COLUMNS": "200"}
    made = run(sys.executable, "-m", "vr_pipeline", "init", "demo", cwd=tmp_path, **environment)
    assert "cd demo && python -m vr_pipeline --pipeline=mpo_dpo" in made.stdout
    demo = tmp_path / "demo"
    where = run(sys.executable, "-c", "import vr_pipeline; print(vr_pipeline.__file__)", cwd=demo, **environment)
    assert where.stdout.startswith(str(installed))
    done = run(sys.executable, "-m", "vr_pipeline", "--pipeline=prompt_filtering", cwd=demo, **environment)
    assert "Finished prompt_filtering" in done.stdout
    assert (demo / "data" / "03_primary" / "filtered_prompts.parquet").is_file()
    # The project's other commands work there, as by Kedro's own command line.
    assert "FILES" in run(sys.executable, "-m", "vr_pipeline", "score", "--help", cwd=demo, **environment).stdout
    lost = subprocess.run(
        [sys.executable, "-m", "vr_pipeline"], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True
    )
    assert lost.returncode == 1
    assert b"Create one: 'python -m vr_pipeline init FOLDER'" in lost.stderr


@pytest.mark.parametrize(
    ("words", "called"),
    [([], "run none"), (["--env=x"], "run x"), (["run", "--env=x"], "run x"), (["score"], "score"), (["scroe"], None)],
)
def test_options_without_a_command_are_those_of_run(words, called):
    group = RunIsUsual(
        commands={
            "run": click.Command(
                "run", params=[click.Option(["--env"])], callback=lambda env: print("run", env or "none")
            ),
            "score": click.Command("score", callback=lambda: print("score")),
        }
    )
    done = CliRunner().invoke(group, words)
    assert done.output.strip() == called if called else "No such command 'scroe'" in done.output


def test_a_folder_with_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "vr_pipeline", "init", "."], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "it already contains files. Name a new or an empty folder." in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
