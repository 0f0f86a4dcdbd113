"""Whole runs of a small project: what is printed, what MLflow gets, how errors read and how a run resumes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toy_project import ROOT, kedro, make_project
from vr_pipeline.hooks.viz_status import EVENTS_FILE


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The project after one undisturbed run from the command line."""
    folder = make_project(tmp_path_factory.mktemp("finished"))
    return folder, kedro(folder, "run", "--pipeline=toy")


OWN_RUNS = "runs where run_uuid not in (select run_uuid from tags where key = 'mlflow.parentRunId')"
"""The runs of ``kedro run``, without those that are nested in them."""


def rows(folder: Path, query: str) -> list[tuple]:
    with sqlite3.connect(folder / "mlflow.db") as connection:
        return connection.execute(query).fetchall()


def test_the_summary_says_what_happened_and_where_to_look(finished):
    _, run = finished
    assert run.returncode == 0, run.stderr
    assert re.search(r"Finished toy in [\d.]+ s, peak memory 0\.\d\d GiB", run.stdout)
    for node in ("read_prompts", "make_clips", "index_clips", "train_policy", "write_report"):
        assert re.search(rf"^  {node} +\d+\.\d", run.stdout, re.MULTILINE)
    assert "clip_index: 4 rows, 1 failed" in run.stdout
    assert "mpo against original, judge reward: +0.500  [+0.250, +0.750]" in run.stdout
    assert "tau 0.800, diff 0.900 (10 pairs, 2 ties)" in run.stdout
    assert "Report: data/report.json" in run.stdout
    assert "clips: 1 of 4 failed and are set aside; the first reason: unlucky" in run.stderr
    assert "Deprecat" not in run.stderr
    assert "Traceback" not in run.stderr


def test_a_pipe_gets_neither_colours_nor_moving_bars(finished):
    _, run = finished
    for output in (run.stdout, run.stderr):
        assert "\x1b" not in output
        assert "\r" not in output
        assert "%|" not in output
        assert "bar of a library" not in output


def shown_by_viz(folder: Path):
    """What Kedro-Viz makes of the record of the last run."""
    from kedro_viz.api.rest.responses.run_events import transform_events_to_structured_format

    return transform_events_to_structured_format(json.loads((folder / EVENTS_FILE).read_text()))


def test_the_last_run_is_left_for_the_graph(finished):
    status = shown_by_viz(finished[0])
    assert status.pipeline.status == "success"
    assert len(status.nodes) == 5
    assert {node.status for node in status.nodes.values()} == {"success"}
    sizes = {dataset.name: dataset.size for dataset in status.datasets.values()}
    assert sizes["clip_index"] == (finished[0] / "data" / "clip_index.parquet").stat().st_size
    assert sizes["clips"] > 0  # a folder


def test_mlflow_has_one_run_with_everything(finished):
    folder, _ = finished
    assert rows(folder, f"select status, artifact_uri like 'file://%' from {OWN_RUNS}") == [("FINISHED", 1)]
    [(run, name)] = rows(folder, f"select run_uuid, name from {OWN_RUNS}")
    assert name.startswith("toy 20")
    [(nested,)] = rows(folder, "select run_uuid from runs where name = 'mpo' and status = 'FINISHED'")
    tags = dict(rows(folder, f"select key, value from tags where run_uuid = '{nested}'"))
    assert tags["mlflow.parentRunId"] == run
    of_recipe = rows(folder, f"select key, step, value from metrics where run_uuid = '{nested}'")
    of_recipe = {(key, step): value for key, step, value in of_recipe}
    assert [of_recipe["loss", step] for step in (1, 2)] == [0.5, 0.4]
    assert of_recipe["gain.judge.mean", 0] == 0.5
    assert "/runs?workflowType=machine_learning (after 'mlflow ui" in finished[1].stdout + finished[1].stderr
    kind = rows(folder, "select value from experiment_tags where key = 'mlflow.experimentKind'")
    assert kind == [("custom_model_development",)]
    parameters = dict(rows(folder, "select key, value from params"))
    assert parameters["toy.rows"] == "4"
    assert parameters["toy.nested.a"] == "1.5"
    metrics = {(key, step): value for key, step, value in rows(folder, "select key, step, value from metrics")}
    assert metrics["evaluation_metrics.gain.mpo.judge.mean", 0] == 0.5
    assert [metrics["mpo/loss", step] for step in (1, 2)] == [0.5, 0.4]
    # Step 1 was told while the node ran, step 2 comes from the table; neither is there twice.
    assert rows(folder, "select count(*) from metrics where key = 'mpo/loss'") == [(2,)]
    assert not list((folder / "logs").glob("live_curves/*"))
    assert ("mpo/accuracy", 1) in metrics
    assert ("mpo/accuracy", 2) not in metrics  # it is missing in the table
    assert metrics["seconds.train_policy", 0] > 0
    tags = dict(rows(folder, f"select key, value from tags where run_uuid = '{run}'"))
    assert tags["kedro.pipelines"] == "toy"
    assert tags["version.torch"]
    artifacts = folder / "mlartifacts" / run / "artifacts"
    assert {path.name for path in artifacts.iterdir()} == {
        *("clip_index.parquet", "metrics.json", "report.json", "lineage")
    }


def test_tracebacks_go_to_the_log_file_and_nothing_else_is_left(finished):
    folder, _ = finished
    names = {path.name for path in folder.iterdir()}
    assert names <= {
        *("conf", "toy", "pyproject.toml", "data", "logs", "mlflow.db", "mlartifacts", ".run.lock", ".viz"),
    }
    assert "Node 1 of 5" in (folder / "logs" / "vr_pipeline.log").read_text()


# One process for all cases: starting Kedro takes longer than the runs.
_CASES = """
import json, sys
from click.testing import CliRunner
from kedro.framework.startup import bootstrap_project
from pathlib import Path

bootstrap_project(Path.cwd())
from vr_pipeline.cli import run

answers = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["kedro", "run", *arguments]
    result = CliRunner().invoke(run, arguments)
    answers.append([result.exit_code, result.stderr])
print(json.dumps(answers))
"""


def outcomes(folder: Path, *cases: list[str]) -> list[tuple[int, str]]:
    """Exit code and standard error of ``kedro run`` for each list of arguments."""
    (folder / "conf" / "local" / "mlflow.yml").write_text("enabled: false\n")
    done = subprocess.run(
        [sys.executable, "-c", _CASES, json.dumps(cases)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return [(code, text) for code, text in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module")
def failures(tmp_path_factory) -> dict[str, tuple[int, str]]:
    folder = make_project(tmp_path_factory.mktemp("failures"))
    cases = {
        "input": ["--params=toy.trouble=input"],
        "verbose": ["--params=toy.trouble=input", "--verbose"],
        "table": ["--pipeline=toy", "--params=toy.trouble=table", "--from-nodes", "read_prompts"],
        "bug": ["--params=toy.trouble=bug"],
        "typo": ["--params=toy.troubel=bug,toy.rows=0"],
        "name": ["--pipeline=toi"],
        "tag": ["--runner-params=routes.gpus.backend=in_process"],
        "backend": ["--runner-params=routes.gpu.backend=spark"],
        "setting": ["--runner-params=execution.wrokers=2"],
        "torchrun": ["--runner-params=routes.gpu.backend=torchrun"],
        "both": ["--pipeline=toy", "--pipelines=toy"],
        "env": ["--env=nowhere"],
    }
    results = dict(zip(cases, outcomes(folder, *cases.values()), strict=True))
    return {**results, "log": (0, (folder / "logs" / "vr_pipeline.log").read_text())}


def test_an_input_error_is_one_paragraph_and_a_command(failures):
    code, text = failures["input"]
    assert code == 1
    assert "file a.csv, row 3, field 'prompt': the column is missing. Add it." in text
    assert "Traceback" not in text
    assert "kedro run --params=toy.trouble=input --from-nodes=index_clips" in text


def test_verbose_shows_the_traceback(failures):
    assert "Traceback" in failures["verbose"][1]


def test_a_table_that_breaks_its_schema_names_column_rule_and_rows(failures):
    code, text = failures["table"]
    assert code == 1
    assert "Table 'training_log_mpo' does not fit its schema when it was to be written" in text
    assert "column 'step': field_uniqueness fails 2 time(s), for instance 1, 1 (row 2, 3)" in text
    assert "--from-nodes=train_policy" in text
    assert "read_prompts" not in text.partition("To resume")[2]
    assert "Traceback" not in text


def test_the_traceback_of_an_error_of_the_program_is_in_the_log(failures):
    code, text = failures["bug"]
    assert code == 1
    assert "The run failed: ZeroDivisionError: a bug" in text
    assert "logs/vr_pipeline.log has the traceback; --verbose shows it here." in text
    assert "--from-nodes=index_clips" in text
    assert "Traceback" not in text
    logged = failures["log"][1]
    assert "Traceback" in logged
    assert "ZeroDivisionError: a bug" in logged


def test_typos_in_parameters_stop_before_any_work(failures):
    code, text = failures["typo"]
    assert code == 1
    assert "toy.rows: Input should be greater than or equal to 1 (got 0)" in text
    assert "toy.troubel: there is no such setting (perhaps 'trouble' is meant)" in text
    assert "Traceback" not in text
    assert "pydantic.dev" not in text
    assert "To resume" not in text


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("name", "There is no pipeline 'toi' (perhaps 'toy' is meant). The pipelines are "),
        ("tag", "field 'routes.gpus': no node has the tag 'gpus'. Use one of gpu, train."),
        ("backend", "field 'routes.gpu'"),
        ("setting", "field 'execution.wrokers': there is no such setting (perhaps 'workers' is meant) (got 2)"),
        ("torchrun", "'make_clips' is not a training node"),
        ("both", "cannot be used together"),
        ("env", "nowhere"),
    ],
)
def test_wrong_commands_are_told_plainly(failures, case, message):
    code, text = failures[case]
    assert code != 0
    assert message in text
    assert "Traceback" not in text


def results(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / "data").rglob("[!.]*.*")
        if path.is_file()
    }


def test_a_killed_run_is_continued_and_seen_as_killed(finished, tmp_path):
    folder = make_project(tmp_path)
    killed = kedro(folder, "run", "--params=toy.trouble=kill")
    assert killed.returncode == -signal.SIGKILL
    assert (folder / "data" / "clips" / "manifest.partial.jsonl").is_file()
    assert rows(folder, f"select status from {OWN_RUNS}") == [("RUNNING",)]
    resumed = kedro(folder, "run")
    assert resumed.returncode == 0, resumed.stderr
    assert "clips: 1 of 4 are there already" in resumed.stderr
    assert sorted(rows(folder, f"select status from {OWN_RUNS}")) == [("FINISHED",), ("KILLED",)]
    assert results(folder) == results(finished[0])


BACKWARDS = """
import time

_start, _now = time.time(), time.time
time.time = lambda: 2 * _start - _now() - 86400
time.time_ns = lambda: int(time.time() * 1e9)
"""


def test_a_clock_that_goes_backwards_changes_nothing(finished, tmp_path):
    folder = make_project(tmp_path)
    assert kedro(folder, "run", "--params=toy.trouble=kill").returncode == -signal.SIGKILL
    tomorrow = time.time() + 86400
    for path in (folder / "data").rglob("*"):
        os.utime(path, (tomorrow, tomorrow))
    # Python imports this module by itself when it starts: the clock of the second run is a day late and runs backwards.
    (folder / "sitecustomize.py").write_text(BACKWARDS)
    resumed = kedro(folder, "run")
    assert resumed.returncode == 0, resumed.stderr
    assert "clips: 1 of 4 are there already" in resumed.stderr
    assert results(folder) == results(finished[0])
    seconds = re.search(r"Finished __default__ in ([\d.]+) s", resumed.stdout)
    assert seconds is not None, resumed.stdout
    assert 0 < float(seconds[1]) < 120
    # In the order of their starting times, as the clocks told them: the second run came first.
    assert rows(folder, f"select status from {OWN_RUNS} order by start_time") == [("FINISHED",), ("KILLED",)]


def test_stopping_ends_in_seconds_and_the_printed_command_goes_on(finished, tmp_path):
    folder = make_project(tmp_path)
    command = [sys.executable, "-m", "kedro", "run", "--params=toy.trouble=slow"]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not (folder / "data" / "clips" / "p0.json").exists():
        assert time.monotonic() < end, "the run did not start"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "The run was stopped" in errors
    assert "Traceback" not in errors
    assert rows(folder, f"select status from {OWN_RUNS}") == [("KILLED",)]
    [printed] = re.findall(r"To resume where it stopped: (.*)", errors)
    assert printed.endswith(" -m kedro run --params=toy.trouble=slow --from-nodes=make_clips")
    # As it stands: it names the interpreter where 'python' alone would be another.
    resumed = subprocess.run(shlex.split(printed), cwd=folder, env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert results(folder) == results(finished[0])


def test_the_second_of_two_runs_waits_for_the_first(tmp_path):
    folder = make_project(tmp_path)
    (folder / "conf" / "local" / "mlflow.yml").write_text("enabled: false\n")
    command = [sys.executable, "-m", "kedro", "run", "--params=toy.trouble=very slow"]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}"}
    first = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (folder / "data" / "clips").exists():
        assert time.monotonic() < end, "the run did not start"
        time.sleep(0.02)
    second = kedro(folder, "run")
    assert first.wait(timeout=30) == 0
    assert second.returncode == 0
    assert "Another run is active in this project; waiting" in second.stderr
    assert "clips: 3 of 4 are there already" in second.stderr


def test_a_failed_run_is_recorded_with_its_error(tmp_path):
    folder = make_project(tmp_path)
    assert kedro(folder, "run", "--params=toy.trouble=training").returncode == 1
    assert rows(folder, f"select status from {OWN_RUNS}") == [("FAILED",)]
    assert "the training collapsed" in dict(rows(folder, "select key, value from tags"))["error"]
    assert dict(rows(folder, "select key, value from params"))["toy.trouble"] == "training"
    # The log of the training was never saved: what it told on the way is all there is of its curves.
    assert rows(folder, "select step, value from metrics where key = 'mpo/loss'") == [(1, 0.5)]
    status = shown_by_viz(folder)
    assert status.pipeline.status == "failed"
    [failed] = [node for node in status.nodes.values() if node.status == "failed"]
    assert "the training collapsed" in failed.error.message
    assert len(status.nodes) == 4  # three were done before, one never started
