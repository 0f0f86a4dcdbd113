"""What a repetition runs: the user's own, or what is trusted; never what the store has put in its place."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from git_commands import git
from vr_pipeline.errors import InputError
from vr_pipeline.lineage.runs import Run
from vr_pipeline.lineage.trust import check_record, fingerprint, is_own, recorded_patch, remember, require_trust

PATCH = "--- a/code.py\n+++ b/code.py\n@@ -1 +1 @@\n-one = 1\n+one = 2\n"
CONFIGURATION = "parameters: {}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "code.py").write_text("one = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def run_of(project: Path, patch: str = PATCH) -> Run:
    code = {
        "commit": git(project, "rev-parse", "HEAD"),
        "folder": "",
        "dirty": bool(patch),
        "changed": ["code.py"],
        "left_out": {},
        "patch_sha256": sha256(patch.encode()).hexdigest() if patch else "",
    }
    stage = {"deps": [{"path": "a.txt"}], "outs": [{"path": "data/b.json"}], "complete": True}
    record = {
        "environment": "base",
        "code": code,
        "configuration_sha256": sha256(CONFIGURATION.encode()).hexdigest(),
        "parameters": {"fit": {"rate": 0.5}},
        "stages": {"fit": stage},
    }
    return Run("0123456789abcdef", "name", "FINISHED", datetime.now(UTC), record=record)


class Store:
    def __init__(self, **files: str) -> None:
        self.files = {"changes.patch": PATCH, "configuration.yml": CONFIGURATION, **files}

    def file(self, run: Run, name: str) -> str:
        return self.files[name]


def test_the_patch_is_taken_as_it_was_recorded(project):
    assert recorded_patch(Store(), run_of(project)) == PATCH


@pytest.mark.parametrize(
    "files",
    [
        {"changes.patch": PATCH.replace("= 2", "= 3")},
        {"changes.patch": ""},
        {"configuration.yml": "parameters: {a: 1}\n"},
    ],
)
def test_what_was_replaced_in_the_store_is_rejected_whoever_is_trusted(project, files):
    with pytest.raises(InputError, match=r"was changed after the run.*nothing was run|Nothing was run"):
        recorded_patch(Store(**files), run_of(project))


def test_a_patch_behind_a_run_without_changes_is_rejected(project):
    with pytest.raises(InputError, match="was changed after the run"):
        recorded_patch(Store(), run_of(project, patch=""))


def test_own_runs_need_no_word(project):
    run, said = run_of(project), list[str]()
    remember(project, fingerprint(run.record))
    remember(project, fingerprint(run.record))
    assert (project / "logs/records.sha256").read_text().count("\n") == 1
    require_trust(project, run, PATCH, trust=False, say=said.append)
    assert said == ["Recorded changes of 1 file(s), not committed: code.py"]


def test_changes_of_others_are_listed_and_need_trust(project):
    run, said = run_of(project), list[str]()
    with pytest.raises(InputError, match=r"not recorded here.*--trust"):
        require_trust(project, run, PATCH, trust=False, say=said.append)
    assert "code.py" in said[0]
    assert require_trust(project, run, PATCH, trust=True, say=said.append)
    # Their commit is one's own, their parameters need not be.
    assert not require_trust(project, run_of(project, patch=""), "", trust=False, say=said.append)


def test_what_is_listed_is_what_the_patch_changes_and_not_what_the_record_says(project):
    run, said = run_of(project), list[str]()
    hidden = PATCH + "--- /dev/null\n+++ b/src/\x1b[2Jevil.py\n@@ -0,0 +1 @@\n+print()\n"
    with pytest.raises(InputError):
        require_trust(project, run, hidden, trust=False, say=said.append)
    assert "evil.py" in said[0]
    assert "\x1b" not in said[0]
    with pytest.raises(InputError, match="are not a patch"):
        require_trust(project, run, "print()\n", trust=True, say=said.append)


def test_a_commit_of_others_needs_trust(project):
    git(project, "checkout", "-q", "--detach")
    (project / "code.py").write_text("theirs = 1\n")
    git(project, "commit", "-qam", "theirs")
    run = run_of(project, patch="")
    git(project, "checkout", "-q", "-")
    with pytest.raises(InputError, match=r"is on none of your branches.*--trust"):
        require_trust(project, run, "", trust=False, say=lambda _: None)
    require_trust(project, run, "", trust=True, say=lambda _: None)


def test_any_change_of_what_is_run_makes_another_record(project):
    record = run_of(project).record
    remember(project, fingerprint(record))
    for change in (
        lambda r: r["code"].update(commit="0" * 40),
        lambda r: r["code"].update(patch_sha256="0"),
        lambda r: r.update(environment="other"),
        lambda r: r["parameters"]["fit"].update(rate=0.6),
    ):
        other: dict[str, Any] = copy.deepcopy(dict(record))
        change(other)
        assert not is_own(project, fingerprint(other))
    assert is_own(project, fingerprint(record))


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["code"].update(commit="--upload-pack=touch /tmp/x"),
        lambda r: r["code"].update(folder="../../elsewhere"),
        lambda r: r["code"].update(folder="/elsewhere"),
        lambda r: r.update(environment="../../x"),
        lambda r: r["stages"].update({"--force": r["stages"]["fit"]}),
        lambda r: r["stages"]["fit"]["outs"].append({"path": "../../home/x"}),
        lambda r: r["stages"]["fit"]["outs"].append({"path": "/etc/x"}),
        lambda r: r["stages"]["fit"]["deps"].append({"path": "--config=x"}),
    ],
)
def test_names_and_places_that_are_none_are_rejected(project, change):
    run = run_of(project)
    check_record(run)
    change(run.record)
    with pytest.raises(InputError, match="which no run would record"):
        check_record(run)
