"""The whole method under DVC, on a small configuration in a fresh clone: what runs, what does not, what is the same.

One clone is made by ``dvc repro`` and repeated by force; another is made by one plain ``kedro run``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.end_to_end.conftest import ROOT, SMALL

pytestmark = pytest.mark.slow

STAGES = (
    *("prompt_filtering", "video_generation", "checklist_inference", "weight_regression", "pair_selection"),
    *("dpo_training", "evaluation"),
)


def run(folder: Path, *command: str) -> str:
    """Run a command in a clone, with the clone's own source, and return what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {
        "PYTHONPATH": str(folder / "src"),
        "PATH": path,
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "GIT_TERMINAL_PROMPT": "0",
    }
    done = subprocess.run(command, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{(done.stdout + done.stderr)[-5000:]}"
    return done.stdout + done.stderr


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    return run(folder, "git", *identity, *arguments).strip()


def changed_stages(folder: Path) -> set[str]:
    """Stages that ``dvc repro`` would run, without running any; data of stages before them count as they are."""
    found = json.loads(run(folder, "dvc", "status", "--json").strip().splitlines()[-1])
    return set(found)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would have of this tree, with small settings, as a repository to clone."""
    folder = tmp_path_factory.mktemp("dvc") / "repository"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--deduplicate"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("the project is not in a git repository")
    needed = ("src/", "conf/", "data/", ".dvc/", ".dvcignore", ".gitignore", "pyproject.toml", "dvc.yaml", ".telemetry")
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(needed) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    # DVC follows files, not options of a command.
    for setting in SMALL.split(","):
        name, _, value = setting.partition("=")
        block, *keys, last = name.split(".")
        path = folder / f"conf/base/parameters/{block}.yml"
        content = yaml.safe_load(path.read_text())
        inner = content[block]
        for key in keys:
            inner = inner[key]
        assert last in inner, f"{name} is not in {path.name}"
        inner[last] = yaml.safe_load(value)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    git(folder, "init", "-q")
    run(folder, "kedro", "lineage", "sync")
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "everything")
    return folder


@pytest.fixture(scope="session")
def reproduced(repository: Path) -> tuple[Path, str]:
    """A fresh clone after ``dvc repro``, and what that printed."""
    folder = repository.with_name("reproduced")
    git(repository, "clone", "-q", str(repository), str(folder))
    return folder, run(folder, "dvc", "repro")


@pytest.fixture(scope="session")
def plain(repository: Path) -> Path:
    """A fresh clone after one plain ``kedro run``."""
    folder = repository.with_name("plain")
    git(repository, "clone", "-q", str(repository), str(folder))
    record_nothing(folder)
    run(folder, "kedro", "run", "--env=base", "--pipeline=mpo_dpo")
    return folder


def record_nothing(folder: Path) -> None:
    """Leave MLflow out, to save its time; it has no part in what stages make."""
    (folder / "conf/base/mlflow.yml").write_text("enabled: false\n")


def hashes(folder: Path) -> dict[str, str]:
    """Path to hash of everything that the stages wrote, by dvc.lock."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text())
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


def test_a_fresh_clone_runs_everything_and_then_nothing(reproduced: tuple[Path, str]) -> None:
    folder, output = reproduced
    assert re.findall(r"Running stage '(\w+)'", output) == list(STAGES)
    assert (
        git(folder, "status", "--porcelain", "--untracked-files=all")
        == "?? data/08_reporting/evaluation_metrics.json\n?? dvc.lock"
    )
    again = run(folder, "dvc", "repro")
    assert "Running stage" not in again
    assert "Data and pipelines are up to date" in again
    metrics = json.loads(run(folder, "dvc", "metrics", "show", "--json").splitlines()[-1])
    assert "data/08_reporting/evaluation_metrics.json" in metrics[""]["data"]


def test_runs_of_stages_name_the_runs_they_came_from(reproduced: tuple[Path, str]) -> None:
    tree = run(reproduced[0], "kedro", "lineage", "show", "policy_mpo")
    lines = [line for line in tree.splitlines() if " run " in line]
    assert lines[0].startswith("dpo_training")
    for stage in STAGES[:-1]:
        assert any(re.search(rf"\b{stage}  run ", line) for line in lines), stage
    assert "data/01_raw/prompts.csv" in tree
    assert "data/01_raw/micro_world/human_preferences.csv" in tree
    assert len(set(re.findall(r" run (\w{8})", tree))) == len(STAGES) - 1


def test_changes_concern_their_stage_and_what_follows(reproduced: tuple[Path, str]) -> None:
    folder = reproduced[0]
    for path, before, after, expected in (
        ("conf/base/parameters/dpo_training.yml", "beta: 30.0", "beta: 31.0", {"dpo_training"}),
        ("src/vr_pipeline/prompts/rouge.py", '"""', '# A comment.\n"""', {"prompt_filtering"}),
        ("src/vr_pipeline/training/losses.py", '"""', '# A comment.\n"""', {"dpo_training"}),
        ("src/vr_pipeline/judges/training.py", '"""', '# A comment.\n"""', set()),
        ("src/vr_pipeline/runners/ray_backend.py", '"""', '# A comment.\n"""', set()),
        ("conf/base/runner.yml", "workers: 1", "workers: 2", set()),
    ):
        file = folder / path
        text = file.read_text()
        assert before in text, path
        file.write_text(text.replace(before, after, 1))
        try:
            assert changed_stages(folder) == expected, path
        finally:
            file.write_text(text)
    assert changed_stages(folder) == set()


def test_one_parameter_reruns_its_stage_and_what_follows(reproduced: tuple[Path, str]) -> None:
    """As an experiment, which leaves the clone as it was."""
    folder = reproduced[0]
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "results")
    before = hashes(folder)
    change = "conf/base/parameters/dpo_training.yml:dpo_training.training.beta=3.0"
    output = run(folder, "dvc", "exp", "run", "--name", "beta", "--set-param", change)
    assert re.findall(r"Running stage '(\w+)'", output) == ["dpo_training", "evaluation"]
    after = hashes(folder)
    assert {path for path in before if before[path] != after[path]} >= {
        "data/06_models/policy_mpo",
        "data/08_reporting/evaluation_metrics.json",
    }
    assert before["data/03_primary/videos"] == after["data/03_primary/videos"]
    shown = run(folder, "dvc", "exp", "show", "--csv")
    assert "policies.mpo.judge.total.mean" in shown
    assert "beta" in run(folder, "dvc", "params", "diff", "HEAD", "beta")
    assert "evaluation_metrics.json" in run(folder, "dvc", "metrics", "diff", "HEAD", "beta")
    pages = folder / "plots"
    run(folder, "dvc", "plots", "diff", "HEAD", "beta", "--out", str(pages))
    page = (pages / "index.html").read_text()
    assert "training_curves_mpo.csv" in page
    assert '"field": "step"' in page
    git(folder, "checkout", "-q", "--", ".")
    run(folder, "dvc", "checkout", "--force")
    assert hashes(folder) == before


def test_by_force_everything_comes_out_the_same(reproduced: tuple[Path, str]) -> None:
    folder = reproduced[0]
    lock = (folder / "dvc.lock").read_bytes()
    record_nothing(folder)
    output = run(folder, "dvc", "repro", "--force", "--no-run-cache")
    assert re.findall(r"Running stage '(\w+)'", output) == list(STAGES)
    assert (folder / "dvc.lock").read_bytes() == lock


def test_a_plain_run_gives_the_same_files_and_dvc_takes_them_over(plain: Path, reproduced: tuple[Path, str]) -> None:
    run(plain, "dvc", "commit", "--force")
    assert hashes(plain) == hashes(reproduced[0])
    assert "Running stage" not in run(plain, "dvc", "repro")


def test_push_and_pull_with_a_folder_as_remote(plain: Path, tmp_path: Path) -> None:
    # After the test above: the plain clone has a lock, and its results are in the cache.
    run(plain, "dvc", "commit", "--force")
    run(plain, "dvc", "remote", "add", "--default", "storage", str(tmp_path / "storage"))
    run(plain, "dvc", "push", "--quiet")
    git(plain, "add", "--all")
    git(plain, "commit", "-qm", "results and remote")
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(plain), str(other))
    run(other, "dvc", "pull", "--quiet")
    assert changed_stages(other) == set()
    assert "Running stage" not in run(other, "dvc", "repro")
