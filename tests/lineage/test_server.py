"""A tracking server by address, behind a login: in use, away, and back again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from login_gate import login_gate
from staged_project import make_staged_project, steps

pytestmark = pytest.mark.slow

SETTINGS = "tracking_uri: http://127.0.0.1:{port}\nexperiment: staged\nwhen_unreachable: {away}\ntimeout: 3\n"
MLFLOW = "conf/base/mlflow.yml"
USER, PASSWORD = "someone", "a-word-nobody-else-writes"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    """Where the project looks for the server: the login in front of it."""
    return free_port()


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make_staged_project(tmp_path_factory.mktemp("staged") / "project")


@pytest.fixture(scope="module")
def away(project: Path, port: int) -> list[tuple[int, str, str]]:
    """Two runs while there is no server: one that may not continue without it, one that may."""
    return steps(
        project,
        {MLFLOW: SETTINGS.format(port=port, away="fail")},
        ["run"],
        {MLFLOW: SETTINGS.format(port=port, away="offline")},
        ["run"],
    )


@pytest.fixture(scope="module")
def made_while_away(project: Path, away) -> set[str]:
    return {path.name for path in (project / "data").glob("*.json")}


@pytest.fixture(scope="module")
def server(port: int, tmp_path_factory, away) -> Iterator[MlflowClient]:
    """The server, started after the runs without it; the client talks to it past the login."""
    folder, behind = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(behind), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'runs.db'}"]
    command += ["--artifacts-destination", str(folder / "files")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{behind}/health", timeout=2).read()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.2)
        address = f"http://127.0.0.1:{behind}"
        with login_gate(port, behind, USER, PASSWORD):
            yield MlflowClient(tracking_uri=address, registry_uri=address)
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def back(project: Path, server: MlflowClient) -> list[tuple[int, str, str]]:
    """With the server: what waits is sent, twice, then an ordinary run and a look at the model; last wrong logins."""
    parameters = (project / "conf/base/parameters.yml").read_text()
    return steps(
        project,
        {"$MLFLOW_TRACKING_USERNAME": USER, "$MLFLOW_TRACKING_PASSWORD": PASSWORD},
        ["lineage", "upload"],
        ["lineage", "upload"],
        {"conf/base/parameters.yml": parameters.replace("rate: 0.5", "rate: 0.9")},
        ["run"],
        ["lineage", "show", "staged_model"],
        ["lineage", "diff", "staged_model/1", "staged_model/2"],
        {"$MLFLOW_TRACKING_PASSWORD": "wrong"},
        ["run"],
        ["lineage", "upload"],
        ["lineage", "show", "latest"],
    )


def test_an_absent_server_stops_the_run_before_any_work(away):
    code, _, errors = away[0]
    assert code == 1
    assert "does not answer (Connection refused)" in errors
    assert "when_unreachable: offline" in errors
    assert "Traceback" not in errors
    assert "Node 1" not in errors


def test_a_run_may_go_on_without_the_server(project, away):
    code, _, errors = away[1]
    assert code == 0, errors
    assert "'kedro lineage upload' sends it" in errors
    assert (project / "mlflow-offline.db").is_file()
    assert (project / "data" / "metrics.json").is_file()


def test_what_waited_arrives_once_and_whole(server, back):
    assert back[0][0] == 0, back[0]
    assert "1 run(s) sent" in back[0][1]
    assert "0 run(s) sent" in back[1][1]
    [experiment] = [found for found in server.search_experiments() if found.name == "staged"]
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    runs = server.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    sent = runs[0]
    assert sent.data.params["fit.rate"] == "0.5"
    assert sent.data.metrics["metrics.score"] > 0
    assert {"lineage", "metrics.json", "model.json"} <= {file.path for file in server.list_artifacts(sent.info.run_id)}
    assert {file.path for file in server.list_artifacts(sent.info.run_id, "lineage")} >= {"lineage/record.json"}
    assert sent.data.tags["output.model"]


def test_a_server_works_like_the_default(server, back):
    code, output, errors = back[3]
    assert back[2][0] == 0, back[2]
    assert code == 0, errors
    assert "Model staged_model, version 2 (best)" in output
    assert "data/raw/words.txt" in output
    versions = server.search_model_versions("name = 'staged_model'")
    assert {version.version for version in versions} == {1, 2} or {version.version for version in versions} == {
        "1",
        "2",
    }
    assert "fit.rate: 0.5 -> 0.9  (+0.4)" in back[4][1]
    assert "Results: 1 differ" in back[4][1]


def test_a_wrong_login_stops_everything_before_any_work(project, server, back):
    for code, output, errors in back[5:]:
        assert code == 1
        assert "rejects the login in MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in errors
        assert "Node 1" not in errors
        assert "Traceback" not in errors
        assert "sent to" not in output
    [experiment] = [found for found in server.search_experiments() if found.name == "staged"]
    assert len(server.search_runs([experiment.experiment_id])) == 2


def test_the_password_is_written_nowhere(project, server, back):
    """Not in records of the project, logs and results, nor in what reached the server."""
    [experiment] = [found for found in server.search_experiments() if found.name == "staged"]
    for run in server.search_runs([experiment.experiment_id]):
        server.download_artifacts(run.info.run_id, "", str(project / "data"))
        (project / "data" / f"{run.info.run_id}.txt").write_text(str(run.to_dictionary()))
    files = [path for path in project.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert {"record.json", "configuration.yml", "mlflow-offline.db"} <= {path.name for path in files}
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
    assert not any(PASSWORD in output + errors for _, output, errors in back)
