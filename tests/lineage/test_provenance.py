"""The state of code and data: what counts as a change, and that the recorded changes can be made again."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from vr_pipeline.lineage.provenance import (
    all_packages,
    code_state,
    dvc_state,
    machine,
    package_versions,
    seeds,
)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    (folder / "data").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "code.py").write_text("one = 1\n")
    (folder / "gone.py").write_text("two = 2\n")
    (folder / "data" / "metrics.json").write_text("{}\n")
    (folder / ".gitignore").write_text("ignored*\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_a_clean_tree_and_no_repository(repository, tmp_path):
    state = code_state(repository)
    assert state.tags == {"git.commit": git(repository, "rev-parse", "HEAD"), "git.dirty": "false"}
    assert state.changes == ""
    assert code_state(tmp_path).tags == {}


def test_results_locks_and_new_data_are_no_changes(repository):
    (repository / "data" / "metrics.json").write_text('{"a": 1}\n')
    (repository / "data" / "new.csv").write_text("a\n")
    (repository / "dvc.lock").write_text("stages: {}\n")
    (repository / "ignored.py").write_text("")
    assert not code_state(repository, ["data/metrics.json"]).dirty
    assert code_state(repository).changed == ("data/metrics.json",)


def test_a_change_that_git_overlooks_is_seen(repository):
    """Same size, same times: as files of parameters have them in DVC's copies of the project."""
    git(repository, "config", "core.trustctime", "false")
    file, then = repository / "code.py", (1_000_000_000, 1_000_000_000)
    os.utime(file, then)
    git(repository, "add", "code.py")
    file.write_text("one = 9\n")
    os.utime(file, then)
    assert git(repository, "status", "--porcelain") == "", "git overlooks it"
    state = code_state(repository)
    assert state.changed == ("code.py",)
    assert "+one = 9" in state.changes
    assert git(repository, "status", "--porcelain") == "", "the index of the user stays as it is"


def test_the_patch_makes_every_change_again(repository, tmp_path):
    (repository / "code.py").write_text("one = 1\nthree = 3")  # no newline at the end
    (repository / "gone.py").unlink()
    (repository / "new folder").mkdir()
    (repository / "new folder" / "new.py").write_text("four = 'vier: \u00e4'\n")
    (repository / "picture.bin").write_bytes(bytes(range(256)))
    index = git(repository, "ls-files", "--stage")
    state = code_state(repository)
    assert git(repository, "ls-files", "--stage") == index, "the index of the user stays as it is"
    assert state.dirty
    assert state.changed == ("code.py", "gone.py", "new folder/new.py", "picture.bin")

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    patch = tmp_path / "changes.patch"
    patch.write_bytes(state.changes.encode("utf-8", errors="surrogateescape"))
    git(clone, "apply", str(patch))
    for name in ("code.py", "new folder/new.py", "picture.bin"):
        assert (clone / name).read_bytes() == (repository / name).read_bytes(), name
    assert not (clone / "gone.py").exists()


def test_large_new_files_are_named_and_left_out(repository):
    (repository / "large.bin").write_bytes(bytes((1 << 20) + 1))
    state = code_state(repository)
    assert state.left_out == ("large.bin",)
    assert state.changes == ""
    assert state.dirty


def test_dvc_state_is_the_hash_of_the_lock(tmp_path):
    assert dvc_state(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    assert dvc_state(tmp_path) == {"dvc.lock.sha256": hashlib.sha256(b"stages: {}\n").hexdigest()}


def test_versions_and_machine_are_strings():
    assert package_versions()["version.torch"].startswith("2.")
    assert all_packages()["kedro"] == package_versions()["version.kedro"]
    assert {"cpu", "cpu.cores", "memory.gib", "gpu", "python"} <= set(machine())
    assert all(isinstance(value, str) and value for value in {**package_versions(), **machine()}.values())


def test_seeds_are_found_by_name():
    found = seeds({"a.seed": 1, "a.split.salt": "x", "a.noise_seed": 2, "a.seeds_total": 3, "a.steps": 4})
    assert found == {"a.seed": "1", "a.split.salt": "x", "a.noise_seed": "2"}
