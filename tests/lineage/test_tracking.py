"""Settings of the tracking store, and servers that do not answer."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.tracking import MlflowConfiguration, anchored_uri, connect, read_configuration, unreachable

ROOT = Path(__file__).resolve().parents[2]


def test_the_shipped_settings_are_valid_and_name_every_choice():
    shipped = yaml.safe_load((ROOT / "conf/base/mlflow.yml").read_text())
    assert read_configuration(shipped) == MlflowConfiguration()
    assert set(shipped) == set(MlflowConfiguration.model_fields)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(InputError, match=r"field 'tracking_uri': .*must not hold credentials") as caught:
        read_configuration({"tracking_uri": "https://someone:secret@mlflow.example.org"})
    assert "secret" not in str(caught.value)
    assert "MLFLOW_TRACKING_PASSWORD" in str(caught.value)
    # Not only in the text: a chained error would show it in a traceback.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"traking_uri": "x"}, "field 'traking_uri': Extra inputs are not permitted"),
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
    configuration = MlflowConfiguration(tracking_uri=f"http://127.0.0.1:{silent}", timeout=0.3)
    start = time.perf_counter()
    with pytest.raises(InputError, match=r"does not answer \(no answer within 0\.3 s\).*when_unreachable: offline"):
        connect(configuration, tmp_path)
    assert time.perf_counter() - start < 10
    assert list(tmp_path.iterdir()) == [], "nothing was made"


def test_names_without_a_machine_and_closed_ports_are_told():
    assert unreachable(MlflowConfiguration(tracking_uri="http://no-such-machine.invalid:1", timeout=5))
    assert unreachable(MlflowConfiguration(tracking_uri="http://127.0.0.1:9", timeout=5)) == "Connection refused"
    assert unreachable(MlflowConfiguration()) == ""


@pytest.mark.parametrize(("status", "trouble"), [(200, ""), (401, ""), (404, ""), (503, "status 503")])
def test_any_answer_but_that_of_a_broken_server_will_do(status, trouble):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        found = unreachable(MlflowConfiguration(tracking_uri=f"http://127.0.0.1:{server.server_port}/", timeout=5))
        thread.join()
    assert found == trouble
