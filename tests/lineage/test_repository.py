"""The state of the code: what counts as a change, that the recorded changes can be made again, and what git rejects."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from git_commands import git
from vr_pipeline.lineage import repository as module
from vr_pipeline.lineage.repository import code_state, in_own_history, patch_hash, patched_files

WORD = "hunter2-correct-horse"


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
    (repository / "module.json").write_bytes(bytes(range(256)))
    index = git(repository, "ls-files", "--stage")
    state = code_state(repository)
    assert git(repository, "ls-files", "--stage") == index, "the index of the user stays as it is"
    assert state.dirty
    assert state.changed == ("code.py", "gone.py", "module.json", "new folder/new.py")

    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    patch = tmp_path / "changes.patch"
    patch.write_bytes(state.changes.encode("utf-8", errors="surrogateescape"))
    git(clone, "apply", str(patch))
    for name in ("code.py", "module.json", "new folder/new.py"):
        assert (clone / name).read_bytes() == (repository / name).read_bytes(), name
    assert not (clone / "gone.py").exists()


def test_large_new_files_are_named_and_left_out(repository):
    (repository / "large.py").write_bytes(bytes((1 << 20) + 1))
    state = code_state(repository)
    assert state.left_out == {"large.py": "larger than 1 MiB"}
    assert "large.py (larger than 1 MiB)" in state.troubles[0]
    assert state.changes == ""
    assert state.dirty


def test_nothing_secret_and_nothing_but_code_is_taken(repository):
    """Tracked or new, by name or by what it holds."""
    (repository / "conf" / "base").mkdir(parents=True)
    (repository / "conf" / "base" / "credentials.yml").write_text("a: 1\n")
    (repository / "settings.yml").write_text("rate: 1\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "a mistake")
    token = "hf_" + "a1B2" * 8
    secret = {
        "conf/base/credentials.yml": f"key: {WORD}\n",
        ".env": f"TOKEN={WORD}\n",
        "deploy/.env.production": f"A={WORD}\n",
        "id_ed25519": WORD,
        "server.pem": WORD,
        ".aws/config": WORD,
        ".dvc/config.local": WORD,
        "table.csv": WORD,
        "weights.safetensors": WORD,
        "archive": WORD,
    }
    for name, text in secret.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----"
    (repository / "settings.yml").write_text(f"rate: 2\npassword: {WORD}\nurl: https://me:{WORD}@example.org\n")
    text = f"KEY = '''{key}'''\nTOKEN = '{token}'\ntokenizer = token_of(tokens)\n"
    (repository / "code.py").write_text(text)
    state = code_state(repository)
    assert set(state.left_out) == set(secret)
    assert state.changed == ("code.py", "settings.yml")
    assert "+rate: 2" in state.changes
    assert "+tokenizer = token_of(tokens)" in state.changes
    for hidden in (WORD, token, "MIIabc"):
        assert hidden not in state.changes
    told = " ".join(state.troubles)
    assert "as possible secrets" in told
    assert "private key" in told
    assert ".env (a file of credentials or keys)" in told
    assert WORD not in told
    # Lines are counted in a patch: it still applies.
    git(repository, "stash", "-q")
    patch = repository.parent / "changes.patch"
    patch.write_bytes(state.changes.encode())
    git(repository, "apply", "--check", str(patch))


def test_all_changes_together_have_a_limit(repository, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_PATCH", 40_000)
    for number in range(8):
        (repository / f"new{number}.py").write_text(f"# {number}\n" * (500 * (number + 1)))
    state = code_state(repository)
    assert len(state.changes) <= 40_000
    assert state.changed[0] == "new0.py"
    assert "new7.py" in state.left_out
    assert {*state.changed, *state.left_out} == {f"new{number}.py" for number in range(8)}


def test_a_project_below_the_root_of_its_repository(repository, tmp_path):
    project = repository / "teams" / "video"
    project.mkdir(parents=True)
    (project / "own.py").write_text("a = 1\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "second")
    (project / "own.py").write_text("a = 2\n")
    (project / "new.py").write_text("b = 1\n")
    (repository / "code.py").write_text("elsewhere = 1\n")
    state = code_state(project)
    assert state.prefix == "teams/video/"
    assert state.changed == ("new.py", "own.py")
    assert patched_files(state.changes) == ["new.py", "own.py"]
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    patch = tmp_path / "changes.patch"
    patch.write_bytes(state.changes.encode())
    git(clone, "apply", "--directory=teams/video/", str(patch))
    assert (clone / "teams/video/own.py").read_text() == "a = 2\n"
    assert (clone / "code.py").read_text() == "one = 1\n"


def test_what_the_user_has_configured_does_not_change_the_patch(repository):
    (repository / "code.py").write_text("one = 2\n")
    plain = code_state(repository).changes
    for name, value in {
        "diff.noprefix": "true",
        "diff.mnemonicPrefix": "true",
        "color.ui": "always",
        "diff.external": "/bin/false",
        "diff.renames": "copies",
        "core.quotePath": "true",
    }.items():
        git(repository, "config", name, value)
    assert code_state(repository).changes == plain


def test_a_repository_inside_is_named(repository):
    inner = repository / "library"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "a.py").write_text("a = 1\n")
    git(inner, "add", ".")
    git(inner, "commit", "-qm", "inner")
    state = code_state(repository)
    assert state.left_out == {"library/": "a repository within this one"}
    git(repository, "add", "library")
    git(repository, "commit", "-qm", "as a submodule")
    assert not code_state(repository).dirty
    (inner / "a.py").write_text("a = 2\n")
    assert code_state(repository).left_out == {"library": "a repository within this one"}
    assert code_state(inner).changed == ("a.py",)


def test_a_commit_that_is_not_behind_a_branch_and_none_at_all(repository, tmp_path):
    git(repository, "checkout", "-q", "--detach")
    assert code_state(repository).tags["git.dirty"] == "false"
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    state = code_state(empty)
    assert state.commit == ""
    assert "no commit yet" in state.tags["git.trouble"]
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", str(shallow))
    assert code_state(shallow).commit == code_state(repository).commit


def test_a_repository_of_another_user_is_told(repository, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    state = code_state(repository)
    if state.commit:
        pytest.skip("this git cannot pretend another owner")
    assert "safe.directory" in state.troubles[0]
    assert str(repository) in state.troubles[0]
    assert state.tags == {"git.trouble": state.troubles[0]}


FAKE = """#!{python}
import os, sys, time
if {condition}:
    {action}
os.execv({git!r}, ["git", *sys.argv[1:]])
"""


@pytest.mark.parametrize(
    ("condition", "action", "said"),
    [
        ("True", "sys.exit('error: unknown option z')", "unknown option"),
        ("'diff' in sys.argv", "time.sleep(60)", "git takes longer than 2 s"),
        ("'ls-files' in sys.argv", "sys.exit('fatal: unable to read the index')", "unable to read the index"),
        ("'rev-parse' in sys.argv", "sys.exit('fatal: detected dubious ownership')", "safe.directory"),
    ],
)
def test_a_git_that_is_too_old_too_slow_or_fails_is_told(repository, tmp_path, monkeypatch, condition, action, said):
    folder = tmp_path / "bin"
    folder.mkdir()
    script = FAKE.format(python=sys.executable, condition=condition, action=action, git=shutil.which("git"))
    (folder / "git").write_text(script)
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    state = code_state(repository, seconds=2)
    assert said in state.troubles[0]
    assert state.tags.get("git.dirty", "unknown") == "unknown"


def test_no_git_at_all_is_told_inside_a_repository_only(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in code_state(repository).troubles[0]
    outside = tmp_path / "outside"
    outside.mkdir()
    assert code_state(outside).troubles == ()


def test_the_files_of_a_patch_are_those_that_git_would_change(repository):
    assert patch_hash("") == ""
    (repository / "ein Name.py").write_text("a = 1\n")
    (repository / "gone.py").unlink()
    changes = code_state(repository).changes
    assert sorted(patched_files(changes)) == ["ein Name.py", "gone.py"]
    with pytest.raises(module.GitTrouble):
        patched_files("no patch\n")


def test_own_history_is_what_local_branches_hold(repository, tmp_path):
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    own = git(clone, "rev-parse", "HEAD")
    git(repository, "checkout", "-qb", "theirs")
    (repository / "code.py").write_text("theirs = 1\n")
    git(repository, "commit", "-qam", "theirs")
    git(clone, "fetch", "-q", "origin", "theirs")
    theirs = git(repository, "rev-parse", "HEAD")
    call = module.Git(clone)
    assert in_own_history(call, own)
    assert not in_own_history(call, theirs)
    assert not in_own_history(call, "0" * 40)
