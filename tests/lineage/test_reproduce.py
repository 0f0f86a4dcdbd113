"""An old run of a changed project is repeated, and a planted change is found at its stage."""

from __future__ import annotations

import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from git_commands import commit, git
from staged_project import make_staged_project, run, steps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A run with changes that were never committed and a parameter from the command line; the project moved on since.

    Its runs: everything, then the last stage alone.
    """
    folder = make_staged_project(tmp_path_factory.mktemp("reproduce") / "project")
    shared = folder / "src/staged/shared.py"
    shared.write_text("def total(numbers):\n    return sum(numbers) + 1  # never committed\n")
    answers = steps(folder, ["run", "--params=draw.count=7"], ["run", "--pipeline=judge"])
    assert [code for code, _, _ in answers] == [0, 0], answers
    shared.write_text("def total(numbers):\n    return max(numbers)\n")
    (folder / "conf/base/parameters.yml").write_text("draw: {seed: 2, count: 3}\nfit: {rate: 9.0}\n")
    commit(folder, "the project moves on")
    for name in ("drawn", "model", "metrics"):
        (folder / f"data/{name}.json").unlink()
    return folder


@pytest.fixture(scope="module")
def runs(project: Path) -> dict[str, str]:
    """Identifiers by what ran."""
    code = (
        "import json; from mlflow import MlflowClient\n"
        "client = MlflowClient('sqlite:///mlflow.db')\n"
        "[found] = [e for e in client.search_experiments() if e.name == 'vr_pipeline']\n"
        "runs = client.search_runs([found.experiment_id])\n"
        "print(json.dumps({r.data.tags['kedro.pipelines']: r.info.run_id for r in runs}))"
    )
    return json.loads(run(project, "-c", code).stdout.splitlines()[-1])


def test_a_run_records_what_it_takes_to_repeat_it(project, runs):
    [folder] = (project / "mlartifacts").glob(f"{runs['__default__']}/artifacts/lineage")
    assert {path.name for path in folder.iterdir()} == {
        *("record.json", "changes.patch", "configuration.yml", "packages.txt"),
    }
    record = json.loads((folder / "record.json").read_text())
    first = git(project, "rev-list", "--max-parents=0", "HEAD")
    assert record["code"] == {
        "commit": first,
        "folder": "",
        "dirty": True,
        "changed": ["src/staged/shared.py"],
        "left_out": {},
        "patch_sha256": sha256((folder / "changes.patch").read_bytes()).hexdigest(),
    }
    assert record["configuration_sha256"] == sha256((folder / "configuration.yml").read_bytes()).hexdigest()
    assert "+    return sum(numbers) + 1  # never committed" in (folder / "changes.patch").read_text()
    assert record["parameters"] == {"draw": {"seed": 1, "count": 7}, "fit": {"rate": 0.5}}
    assert "count: 7" in (folder / "configuration.yml").read_text()
    assert record["packages"]["kedro"]
    assert list(record["stages"]) == ["draw", "fit", "judge"]
    fit = record["stages"]["fit"]
    assert fit["complete"]
    assert fit["cmd"] == "sh conf/kedro.sh run --env=base --pipeline=fit"
    assert "src/staged/shared.py" in {entry["path"] for entry in fit["deps"]}
    assert record["stages"]["draw"]["outs"][0] in fit["deps"], "what one stage writes the next one reads"
    assert record["metrics"]["metrics"]["metrics.score"] > 0


def test_an_old_run_of_a_changed_project_is_repeated(project, runs):
    [(code, output, errors)] = steps(project, ["lineage", "reproduce", runs["__default__"][:8]])
    assert code == 0, output + errors
    assert "Applied the changes that were not committed: src/staged/shared.py" in errors
    assert "Set the run's parameters of draw" in errors
    assert "Reproduced: every hash of 3 stage(s) is equal." in output
    assert len(git(project, "worktree", "list").splitlines()) == 1, "the worktree is gone"
    assert git(project, "status", "--porcelain", "--untracked-files=no") == "", "the project is as it was"


def test_a_planted_change_is_found_at_its_stage(project, runs, tmp_path):
    place = tmp_path / "worktree"
    # The run of the last stage alone: what it began with is in no cache, so the stages before it run again.
    [(code, output, errors)] = steps(
        project, ["lineage", "reproduce", runs["judge"], f"--folder={place}"], PLANTED="2.5"
    )
    assert code == 1, output + errors
    assert "Results of draw, fit are in no cache" in errors
    assert "draw: the same  (ran again to supply data)" in output
    assert "fit: differs in model" in output
    assert "judge: differs in metrics" in output
    assert "(+0.25)" in output
    assert "The environment is the same." in output
    assert output.rstrip().endswith("NOT reproduced: fit is the first stage that differs.")
    assert (place / "data/model.json").is_file()
    git(project, "worktree", "remove", "--force", str(place))


def test_code_that_is_gone_is_told(project, tmp_path):
    answers = steps(
        project,
        ["lineage", "reproduce", "nothing"],
        ["lineage", "reproduce", "latest", f"--folder={tmp_path}"],
        TMPDIR=str(tmp_path),
    )
    assert [code for code, _, _ in answers] == [2, 2]
    assert "there is no run, model or recorded file 'nothing'" in answers[0][2]
    assert "the folder exists" in answers[1][2]
    assert list(tmp_path.glob("reproduce-*")) == [], "nothing is left behind"
    assert subprocess.run(["git", "worktree", "list"], cwd=project, capture_output=True).stdout.count(b"\n") == 1


def test_data_come_from_the_remote_where_the_cache_has_lost_them(project):
    """The last of this file: it makes the project's data anew and takes them away again."""
    answers = steps(project, ["run"], ["run", "--pipeline=judge"])
    assert [code for code, _, _ in answers] == [0, 0], answers
    # Known to this machine only, as a remote with credentials is; DVC notes the folder from where its settings stand.
    for arguments in (
        ["commit", "--force", "--quiet"],
        ["remote", "add", "--default", "--local", "storage", "../storage"],
        ["push", "--quiet"],
    ):
        done = run(project, "-m", "dvc", *arguments)
        assert done.returncode == 0, done.stderr
    shutil.rmtree(project / ".dvc" / "cache")
    assert "url = ../../storage" in (project / ".dvc/config.local").read_text()
    for name in ("drawn", "model", "metrics"):
        (project / f"data/{name}.json").unlink()
    [(code, output, errors)] = steps(project, ["lineage", "reproduce", "latest"])
    assert code == 0, output + errors
    assert "Reproduced: every hash of 1 stage(s) is equal." in output
    assert "run again" not in errors, "the model came from the remote"
