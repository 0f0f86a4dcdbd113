"""Settings of the tracking store, and servers that do not answer."""

from __future__ import annotations

import http.server
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.tracking import (
    MlflowConfiguration,
    anchored_uri,
    connect,
    experiment_tags,
    make_database,
    read_configuration,
    records_folder,
    unreachable,
)

ROOT = Path(__file__).resolve().parents[2]


def test_the_shipped_settings_are_valid_and_name_every_choice():
    shipped = yaml.safe_load((ROOT / "conf/base/mlflow.yml").read_text())
    assert read_configuration(shipped) == MlflowConfiguration()
    assert set(shipped) == set(MlflowConfiguration.model_fields)


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("tracking_uri", "https://someone:secret@mlflow.example.org"),
        ("tracking_uri", "HTTPS://secret@mlflow.example.org"),
        ("tracking_uri", "postgresql://someone:secret@db.example.org/mlflow"),
        ("artifacts", "ftp://someone:secret@files.example.org/runs"),
        ("offline_uri", "mysql+pymysql://someone:secret@db.example.org/mlflow"),
    ],
)
def test_credentials_in_an_address_are_rejected_and_not_repeated(field, address):
    with pytest.raises(InputError, match=rf"field '{field}': .*must not contain credentials") as caught:
        read_configuration({field: address})
    assert "secret" not in str(caught.value)
    assert "MLFLOW_TRACKING_PASSWORD" in str(caught.value)
    # Not only in the text: a chained error would show it in a traceback.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_the_user_of_a_database_is_no_secret():
    address = "postgresql://someone@db.example.org/mlflow"
    assert read_configuration({"tracking_uri": address}).tracking_uri == address


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"traking_uri": "x"}, r"field 'traking_uri': there is no such setting \(perhaps 'tracking_uri' is meant\)"),
        ({"when_unreachable": "wait"}, "field 'when_unreachable'"),
        ({"timeout": 0}, "field 'timeout': .*greater than 0"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        read_configuration(settings)


def test_files_start_at_the_project(tmp_path):
    assert anchored_uri("sqlite:///a.db", tmp_path) == f"sqlite:///{tmp_path.as_posix()}/a.db"
    assert anchored_uri("sqlite:////a.db", tmp_path) == "sqlite:////a.db"
    assert anchored_uri("http://a", tmp_path) == "http://a"


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_silent_server_is_given_up_in_time(silent, tmp_path):
    configuration = MlflowConfiguration(tracking_uri=f"http://127.0.0.1:{silent}", timeout=0.3, when_unreachable="fail")
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"does not answer \(no answer within 0\.3 s\).*when_unreachable: offline"):
        connect(configuration, tmp_path)
    assert time.perf_counter() - start < 10
    assert list(tmp_path.iterdir()) == [], "nothing was made"


def test_names_without_a_machine_and_closed_ports_are_told():
    assert unreachable(MlflowConfiguration(tracking_uri="http://no-such-machine.invalid:1", timeout=5))
    assert unreachable(MlflowConfiguration(tracking_uri="http://127.0.0.1:9", timeout=5)) == "Connection refused"
    assert unreachable(MlflowConfiguration()) == ""


@contextmanager
def answering(status: int) -> Iterator[str]:
    """The address of a server that gives this answer to everything."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "trouble"), [(200, ""), (401, ""), (404, ""), (503, "status 503")])
def test_any_answer_but_that_of_a_broken_server_will_do(status, trouble):
    with answering(status) as address:
        assert unreachable(MlflowConfiguration(tracking_uri=address, timeout=5)) == trouble


@pytest.mark.parametrize(
    ("status", "login", "message"),
    [
        (401, {}, "requires a login, and the environment has none"),
        (401, {"USERNAME": "a", "PASSWORD": "hush"}, "rejects the login in .*USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (401, {"TOKEN": "hush"}, "rejects the login in MLFLOW_TRACKING_TOKEN"),
        (403, {"TOKEN": "hush"}, "does not allow the login in MLFLOW_TRACKING_TOKEN to record"),
    ],
)
@pytest.mark.parametrize("away", ["fail", "offline"])
def test_a_rejected_login_is_reported_and_never_taken_for_a_server_that_is_away(
    status, login, message, away, monkeypatch, tmp_path
):
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name, value in login.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    with answering(status) as address, pytest.raises(InputError, match=message) as caught:
        connect(MlflowConfiguration(tracking_uri=address, when_unreachable=away), tmp_path)
    assert "hush" not in str(caught.value)
    assert "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN" in str(caught.value)
    assert list(tmp_path.iterdir()) == [], "nothing was recorded elsewhere"


def test_an_experiment_in_a_copy_of_the_project_records_to_the_project(monkeypatch, tmp_path):
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmp1"
    copy.mkdir(parents=True)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    assert records_folder(copy) == copy
    assert experiment_tags() == {}
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_EXP_NAME", "beta-3")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "c0ffee")
    assert records_folder(copy) == tmp_path
    assert records_folder(tmp_path) == tmp_path
    assert records_folder(tmp_path / "another") == tmp_path / "another", "a project inside of another is its own"
    assert experiment_tags() == {"dvc.experiment": "beta-3", "dvc.baseline": "c0ffee"}


def test_a_kill_while_the_database_is_made_leaves_none(tmp_path, monkeypatch):
    from mlflow.store.db import utils
    from sqlalchemy import text

    class Killed(BaseException):
        pass

    def make_tables(engine, *, killed):
        with engine.begin() as connection:
            connection.execute(text("create table half (a integer)"))
        if killed:
            raise Killed

    # The moment that matters: MLflow has made some of its tables and not the others.
    monkeypatch.setattr(utils, "_initialize_tables", partial(make_tables, killed=True))
    with pytest.raises(Killed):
        connect(MlflowConfiguration(), tmp_path)
    assert not (tmp_path / "mlflow.db").exists()
    monkeypatch.setattr(utils, "_initialize_tables", partial(make_tables, killed=False))
    make_database(f"sqlite:///{tmp_path}/mlflow.db")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A database without experiments: to make one takes seconds."""
    file = tmp_path_factory.mktemp("template") / "mlflow.db"
    make_database(f"sqlite:///{file}")
    return file


@pytest.fixture
def furnished(template: Path, tmp_path: Path) -> Path:
    """A project that has its databases."""
    for name in ("mlflow.db", "mlflow-offline.db"):
        shutil.copy(template, tmp_path / name)
    return tmp_path


def _damaged(file: Path) -> str:
    file.write_bytes(b"no database" * 100)
    return "file is not a database"


def _locked(file: Path) -> str:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    _locked.connection = connection  # type: ignore[attr-defined]
    return "database is locked"


def _of_another_version(file: Path) -> str:
    with sqlite3.connect(file) as connection:
        connection.execute("update alembic_version set version_num = 'c0ffee'")
    return "out-of-date database schema"


def _a_folder(file: Path) -> str:
    file.unlink()
    file.mkdir()
    return "unable to open database file"


@pytest.mark.parametrize("spoil", [_damaged, _locked, _of_another_version, _a_folder])
def test_a_store_that_cannot_be_used_is_told_and_the_run_recorded_offline(spoil, furnished):
    reason = spoil(furnished / "mlflow.db")
    start = time.monotonic()
    with pytest.raises(InputError, match=f"MLflow cannot record runs.*{reason}"):
        connect(MlflowConfiguration(when_unreachable="fail", timeout=0.2), furnished)
    connection = connect(MlflowConfiguration(timeout=0.2), furnished)
    assert time.monotonic() - start < 60
    assert connection.offline
    assert reason in connection.reason
    assert (furnished / "mlflow-offline.db").is_file()


def test_a_deleted_experiment_is_told(furnished):
    first = connect(MlflowConfiguration(), furnished)
    first.client.delete_experiment(first.experiment)
    second = connect(MlflowConfiguration(), furnished)
    assert second.offline
    assert f"mlflow experiments restore --experiment-id {first.experiment}" in second.reason


@pytest.mark.parametrize("name", ["a%20b%2Fc?x#y z\u00fc\u4e2d'\"&=+;@:~"])
def test_any_folder_name_will_do(name, tmp_path):
    project = tmp_path / name
    project.mkdir()
    connection = connect(MlflowConfiguration(), project)
    run = connection.client.create_run(connection.experiment).info.run_id
    connection.client.log_text(run, "a", "a.txt")
    assert {path.name for path in project.iterdir()} == {"mlflow.db", "mlartifacts"}
    assert (project / "mlartifacts" / run / "artifacts" / "a.txt").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing is written elsewhere"
    assert connect(MlflowConfiguration(), project).client.get_run(run).info.status == "RUNNING"


def test_a_copied_project_writes_to_its_own_files_and_has_its_old_ones(template, tmp_path):
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    shutil.copy(template, original / "mlflow.db")
    first = connect(MlflowConfiguration(), original)
    run = first.client.create_run(first.experiment).info.run_id
    first.client.log_text(run, "old", "old.txt")
    first.client.create_registered_model("model")
    first.client.create_model_version("model", source=f"runs:/{run}/old.txt", run_id=run)
    shutil.copytree(original, copy)
    second = connect(MlflowConfiguration(), copy)
    assert second.moved == (original / "mlartifacts").as_uri()
    before = sorted(original.rglob("*"))
    made = second.client.create_run(second.experiment).info.run_id
    second.client.log_text(made, "new", "new.txt")
    assert sorted(original.rglob("*")) == before
    assert (copy / "mlartifacts" / made / "artifacts" / "new.txt").is_file()
    shutil.rmtree(original)
    assert Path(second.client.download_artifacts(run, "old.txt", str(tmp_path))).read_text() == "old"
    assert connect(MlflowConfiguration(), copy).moved == ""


@pytest.mark.parametrize("artifacts", ["other", "/elsewhere/mlartifacts"])
def test_artifacts_that_were_put_elsewhere_stay_there(artifacts, furnished):
    first = connect(MlflowConfiguration(), furnished)
    place = first.client.get_experiment(first.experiment).artifact_location
    again = connect(MlflowConfiguration(artifacts=artifacts), furnished)
    assert again.moved == ""
    assert again.client.get_experiment(again.experiment).artifact_location == place


def test_what_answers_anything_is_no_server(furnished):
    with answering(200) as address:
        connection = connect(MlflowConfiguration(tracking_uri=address, patience=5), furnished)
    assert connection.offline
    assert connection.reason
