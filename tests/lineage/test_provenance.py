"""The state of code and data as tags."""

from __future__ import annotations

import hashlib
import subprocess

from vr_pipeline.lineage.provenance import dvc_state, git_state, machine, package_versions


def git(folder, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_git_state_follows_the_tree(tmp_path):
    assert git_state(tmp_path) == {}
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"git.commit": commit, "git.dirty": "false"}
    (tmp_path / "untracked").write_text("1")
    assert git_state(tmp_path)["git.dirty"] == "false"
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == {"git.commit": commit, "git.dirty": "true"}


def test_dvc_state_is_the_hash_of_the_lock(tmp_path):
    assert dvc_state(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    assert dvc_state(tmp_path) == {"dvc.lock.sha256": hashlib.sha256(b"stages: {}\n").hexdigest()}


def test_versions_and_machine_are_strings():
    assert package_versions()["version.torch"].startswith("2.")
    assert all(isinstance(value, str) and value for value in {**package_versions(), **machine()}.values())
