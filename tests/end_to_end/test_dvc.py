"""The whole method under DVC, on a small configuration in a fresh clone: what runs, what does not, what is the same.

One clone is made by ``dvc repro`` and repeated by force; another gets what one plain ``kedro run`` has made.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.end_to_end.conftest import ROOT, SMALL

from git_commands import git

pytestmark = pytest.mark.slow

STAGES = (
    *("prompt_filtering", "video_generation", "checklist_inference", "weight_regression", "pair_selection"),
    *("dpo_training", "evaluation"),
)


def run(folder: Path, *command: str) -> str:
    """Run a command in a clone, with the clone's own source, and return what it prints."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {
        "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{ROOT / 'src'}",
        "PATH": path,
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "GIT_TERMINAL_PROMPT": "0",
    }
    done = subprocess.run(command, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{(done.stdout + done.stderr)[-5000:]}"
    return done.stdout + done.stderr


def changed_stages(folder: Path) -> set[str]:
    """Stages that ``dvc repro`` would run, without running any; data of stages before them count as they are."""
    found = json.loads(run(folder, "dvc", "status", "--json").strip().splitlines()[-1])
    return set(found)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would have of this tree before any run, with small settings, as a repository to clone."""
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
    # The figures of a run are for git to keep; a run in this tree may have left some.
    made = ("/08_reporting/evaluation_metrics.json", "/08_reporting/headline_figures.json")
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(needed) and not name.endswith(made) and (ROOT / name).is_file():
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
def plain(repository: Path, small_run: Path) -> Path:
    """A fresh clone with everything that one plain ``kedro run`` of the same settings has made."""
    folder = repository.with_name("plain")
    git(repository, "clone", "-q", str(repository), str(folder))
    shutil.copytree(small_run / "data", folder / "data", dirs_exist_ok=True)
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
        == "?? data/08_reporting/evaluation_metrics.json\n?? data/08_reporting/headline_figures.json\n?? dvc.lock"
    )
    again = run(folder, "dvc", "repro")
    assert "Running stage" not in again
    assert "Data and pipelines are up to date" in again
    metrics = json.loads(run(folder, "dvc", "metrics", "show", "--json").splitlines()[-1])
    assert list(metrics[""]["data"]) == ["data/08_reporting/headline_figures.json"]


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
        ("src/vr_pipeline/prompts/decisions.py", '"""', '# A comment.\n"""', {"prompt_filtering"}),
        (
            "src/vr_pipeline/prompts/rouge.py",  # near duplicates between sets of prompts, too
            '"""',
            '# A comment.\n"""',
            {"prompt_filtering", "weight_regression", "evaluation"},
        ),
        ("src/vr_pipeline/training/losses.py", '"""', '# A comment.\n"""', {"dpo_training"}),
        ("src/vr_pipeline/judges/training/task.py", '"""', '# A comment.\n"""', set()),
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


@pytest.fixture(scope="session")
def committed(reproduced: tuple[Path, str]) -> Path:
    """The clone after ``dvc repro``, its results committed, as experiments want it."""
    folder = reproduced[0]
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "results")
    return folder


BETA = "conf/base/parameters/dpo_training.yml:dpo_training.training.beta"
MARGIN = "conf/base/parameters/pair_selection.yml:pair_selection.recipes.mpo.min_margin"


def experiments(folder: Path) -> list[dict[str, str]]:
    """The rows of ``dvc exp show``."""
    printed = run(folder, "dvc", "exp", "show", "--csv")
    return list(csv.DictReader(printed[printed.index("Experiment,") :].splitlines()))


@pytest.fixture(scope="session")
def sweep(committed: Path) -> tuple[dict[tuple[float, float], str], dict[str, list[str]]]:
    """A grid over beta and margin run by a queue: names by (beta, margin), and the stages that ran by name.

    Of the four experiments one is taken out of the queue, to save its time.
    """
    before = (committed / "dvc.lock").read_bytes()
    run(committed, "dvc", "exp", "run", "--queue", "-S", f"{BETA}=3.0,30.0", "-S", f"{MARGIN}=0.0,1.0")
    queued = {
        (float(row["dpo_training.training.beta"]), float(row[MARGIN.partition(":")[2]])): row["Experiment"]
        for row in experiments(committed)
        if row["State"] == "Queued"
    }
    assert set(queued) == {(3.0, 0.0), (3.0, 1.0), (30.0, 0.0), (30.0, 1.0)}
    run(committed, "dvc", "queue", "remove", queued.pop((30.0, 1.0)))
    output = run(committed, "dvc", "exp", "run", "--run-all")
    parts = re.split(r"Reproducing experiment '([\w-]+)'", output)[1:]
    ran = {name: re.findall(r"Running stage '(\w+)'", text) for name, text in zip(parts[::2], parts[1::2], strict=True)}
    assert (committed / "dvc.lock").read_bytes() == before, "the project itself is as it was"
    assert git(committed, "status", "--porcelain") == ""
    return queued, ran


def test_a_sweep_runs_what_its_parameters_change_and_what_follows(
    committed: Path, sweep: tuple[dict[tuple[float, float], str], dict[str, list[str]]]
) -> None:
    names, ran = sweep
    assert ran[names[3.0, 0.0]] == ["dpo_training", "evaluation"]
    assert ran[names[3.0, 1.0]] == ["pair_selection", "dpo_training", "evaluation"]
    assert ran[names[30.0, 0.0]] == [], "these are the settings of the project"
    rows = {row["Experiment"] or row["rev"]: row for row in experiments(committed)}
    assert {rows[name]["State"] for name in names.values()} == {"Success"}
    rewards = {pair: float(rows[name]["mpo.gain_judge"]) for pair, name in names.items()}
    assert rewards[30.0, 0.0] == float(rows["workspace"]["mpo.gain_judge"])


def test_experiments_are_compared_by_their_parameters_metrics_and_curves(
    committed: Path, sweep: tuple[dict[tuple[float, float], str], dict[str, list[str]]], tmp_path: Path
) -> None:
    """On the plot page: the values of each curve, for each side and strategy, are numbers over the steps."""
    one, other = sweep[0][3.0, 0.0], sweep[0][3.0, 1.0]
    changed = json.loads(run(committed, "dvc", "params", "diff", one, other, "--json").splitlines()[-1])
    file, key = MARGIN.split(":")
    assert changed == {file: {key: {"old": 0.0, "new": 1.0, "diff": 1.0}}}
    moved = json.loads(run(committed, "dvc", "metrics", "diff", "HEAD", one, "--json").splitlines()[-1])
    assert list(moved) == ["data/08_reporting/headline_figures.json"]
    run(committed, "dvc", "plots", "diff", "HEAD", one, "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    drawn = dict(re.findall(r'<div id = "(\w+)">.*?var spec = (\{.*?\});\s*vegaEmbed', page, flags=re.DOTALL))
    assert list(drawn) == ["validation_reward", "loss", "implicit_accuracy", "gradient_norm"]
    for name, text in drawn.items():
        spec = json.loads(text)
        assert (spec["encoding"]["x"]["field"], spec["encoding"]["x"]["type"]) == ("step", "quantitative")
        curves: dict[tuple[str, str], list[float]] = {}
        for point in spec["data"]["values"]:
            # A blank would be drawn as 0.
            curves.setdefault((point["rev"], point["filename"]), []).append(float(point[name]))
        assert {side for side, _ in curves} == {"HEAD", one}
        assert {file for _, file in curves} == {"training_curves_dpo.csv", "training_curves_mpo.csv"}
        assert min(sum(map(math.isfinite, values)) for values in curves.values()) >= 3
    assert (tmp_path / "static" / f"{one}_data_08_reporting_rewards_by_dimension.png").is_file()


def test_runs_of_experiments_are_kept_and_say_what_they_came_from(
    committed: Path, sweep: tuple[dict[tuple[float, float], str], dict[str, list[str]]]
) -> None:
    """In folders of their own, which are gone: their runs lie with those of the project."""
    one, other = sweep[0][3.0, 0.0], sweep[0][3.0, 1.0]
    compared = run(committed, "kedro", "lineage", "diff", one, other)
    assert "  pair_selection.recipes.mpo.min_margin: 0 -> 1  (+1)" in compared
    assert "beta" not in compared
    assert "  pair_selection_report: " in compared
    code = (
        "import json; from mlflow import MlflowClient\n"
        "client = MlflowClient('sqlite:///mlflow.db', 'sqlite:///mlflow.db')\n"
        "runs = client.search_runs([e.experiment_id for e in client.search_experiments()])\n"
        "tags = [{**r.data.tags, 'id': r.info.run_id} for r in runs if 'dvc.experiment' in r.data.tags]\n"
        "print(json.dumps([tags, client.get_registered_model('policy_mpo').aliases]))"
    )
    tags, aliases = json.loads(run(committed, sys.executable, "-c", code).splitlines()[-1])
    made = {
        name: sorted(tag["kedro.pipelines"] for tag in tags if tag["dvc.experiment"] == name) for name in (one, other)
    }
    assert made == {one: ["dpo_training", "evaluation"], other: ["dpo_training", "evaluation", "pair_selection"]}
    assert {tag["git.dirty"] for tag in tags} == {"true"}
    assert {tag["git.commit"] for tag in tags} == {git(committed, "rev-parse", "HEAD")}
    assert aliases["best"]
    # A stage of an experiment, whose folder is gone, again: its code and parameters, data from DVC's cache.
    [pairs] = [tag["id"] for tag in tags if tag["kedro.pipelines"] == "pair_selection"]
    again = run(committed, "kedro", "lineage", "reproduce", pairs)
    assert re.search(r"Applied the changes that were not committed: .*conf/base/parameters/pair_selection\.yml", again)
    assert "Reproduced: every hash of 1 stage(s) is equal." in again


def test_an_experiment_in_a_folder_of_its_own(committed: Path) -> None:
    """Its change stays out of the project until it is applied."""
    title = "conf/base/parameters/evaluation.yml:evaluation.report.title=A-new-title"
    output = run(committed, "dvc", "exp", "run", "--temp", "--name", "titled", "-S", title)
    assert re.findall(r"Running stage '(\w+)'", output) == ["evaluation"]
    report = committed / "data/08_reporting/evaluation_report.html"
    assert git(committed, "status", "--porcelain") == ""
    assert "A-new-title" not in report.read_text()
    before = hashes(committed)
    run(committed, "dvc", "exp", "apply", "titled")
    assert "A-new-title" in report.read_text()
    assert "Running stage" not in run(committed, "dvc", "repro")
    after = hashes(committed)
    assert {path for path in before if before[path] != after[path]} == {"data/08_reporting/evaluation_report.html"}
    git(committed, "checkout", "-q", "--", ".")
    run(committed, "dvc", "checkout", "--force")
    assert hashes(committed) == before
    assert changed_stages(committed) == set()


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
