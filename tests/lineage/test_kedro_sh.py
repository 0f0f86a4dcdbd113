"""Stages of DVC find kedro without an activated environment, on any machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "conf" / "kedro.sh"
SYSTEM = "/usr/bin:/bin"


def environment(folder: Path, *, broken: bool = False) -> Path:
    """An environment whose kedro says where it lies; its Python is this one under another name."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    if not broken:
        (folder / "bin" / "kedro").write_text('#!/bin/sh\necho "$0" "$@"\n')
        (folder / "bin" / "kedro").chmod(0o755)
    return folder


def stage(python: str, folder: Path, path: str = SYSTEM, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script as DVC runs a stage: a Python process starts a shell, which runs the command."""
    code = "import subprocess, sys; sys.exit(subprocess.call('sh conf/kedro.sh run --env=base; exit $?', shell=True))"
    variables = {"PATH": path, **variables}
    return subprocess.run([python, "-c", code], cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "a project" / "conf").mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "a project" / "conf")
    return tmp_path / "a project"


def test_the_script_is_that_of_the_package() -> None:
    assert SCRIPT.read_text() == (ROOT / "src/vr_pipeline/lineage/templates/kedro.sh").read_text()
    assert "sh conf/kedro.sh run" in (ROOT / "dvc.yaml").read_text()


def test_the_kedro_beside_the_python_of_dvc_is_taken(tmp_path: Path, project: Path) -> None:
    own, other = environment(tmp_path / "its own env"), environment(tmp_path / "other")
    done = stage(str(own / "bin" / "python"), project, f"{other}/bin:{SYSTEM}")
    assert done.stdout.strip() == f"{own}/bin/kedro run --env=base", done.stderr
    relative = os.path.relpath(own / "bin" / "python", project)
    assert stage(relative, project).stdout.strip() == f"{own}/bin/kedro run --env=base"


def test_else_that_of_the_project_and_then_that_of_the_path(tmp_path: Path, project: Path) -> None:
    without = str(environment(tmp_path / "without", broken=True) / "bin" / "python")
    other = environment(tmp_path / "other")
    assert stage(without, project, f"{other}/bin:{SYSTEM}").stdout.strip() == f"{other}/bin/kedro run --env=base"
    origin = environment(tmp_path / "origin" / ".venv")
    done = stage(without, project, f"{other}/bin:{SYSTEM}", DVC_ROOT=str(origin.parent))
    assert done.stdout.strip() == f"{origin}/bin/kedro run --env=base"


def test_no_kedro_at_all_is_one_sentence(tmp_path: Path, project: Path) -> None:
    done = stage(str(environment(tmp_path / "without", broken=True) / "bin" / "python"), project)
    assert done.returncode == 127
    assert "kedro was not found" in done.stderr
