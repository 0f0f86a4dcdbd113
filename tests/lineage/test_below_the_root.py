"""A project that is a folder of a larger repository: its runs are recorded and repeated as others are."""

from __future__ import annotations

import json

import pytest

from git_commands import git
from staged_project import make_staged_project, steps

pytestmark = pytest.mark.slow


def test_a_run_of_a_project_below_the_root_is_repeated(tmp_path):
    root = tmp_path / "mono"
    project = root / "teams" / "video"
    project.mkdir(parents=True)
    (root / "other.py").write_text("elsewhere = 1\n")
    git(root, "init", "-q")
    make_staged_project(project)
    (project / "src/staged/shared.py").write_text("def total(numbers):\n    return sum(numbers) + 1\n")
    (root / "other.py").write_text("elsewhere = 2\n")
    answers = steps(project, ["run"], ["lineage", "reproduce", "latest", f"--folder={tmp_path / 'again'}"])
    assert [code for code, _, _ in answers] == [0, 0], answers
    assert "Reproduced: every hash of 3 stage(s) is equal." in answers[1][1]
    [file] = (project / "mlartifacts").glob("*/artifacts/lineage/record.json")
    code = json.loads(file.read_text())["code"]
    assert code["folder"] == "teams/video/"
    assert code["changed"] == ["src/staged/shared.py"]
