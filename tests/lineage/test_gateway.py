"""Steps on their way to a store: in order, once, again after a failure, and never at the cost of the run."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException

from vr_pipeline.lineage import delivery, gateway
from vr_pipeline.lineage.delivery import REPLACES, RunDelivery
from vr_pipeline.lineage.gateway import Gateway, NoAnswer, Target, first_line, judge, within
from vr_pipeline.lineage.tracking import Connection, MlflowConfiguration


class Refusal(MlflowException):
    """An answer of a store with this status."""

    def __init__(self, status: int, message: str = "no", code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.error_code = code

    def get_http_status_code(self) -> int:
        return self.status


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "PAUSE", 0.01)


@pytest.fixture
def opened() -> Iterator[Callable[..., Gateway]]:
    made: list[Gateway] = []

    def start(patience: float = 0.3) -> Gateway:
        made.append(Gateway(Target(SimpleNamespace(), "1", "run"), patience=patience))
        return made[-1]

    yield start
    for one in made:
        one._ended = True


def test_steps_arrive_in_order_and_once(opened):
    arrived: list[int] = []
    one = opened()
    for number in range(50):
        one.put(f"step {number}", lambda to, number=number: arrived.append(number))
    assert one.close() == []
    assert arrived == list(range(50))


def test_a_store_that_is_away_for_a_while_loses_nothing(opened, caplog):
    arrived: list[str] = []
    failures = [Refusal(503), requests.ConnectionError("refused"), json.JSONDecodeError("a page", "", 0), Refusal(500)]
    one = opened(patience=5)

    def send(to: Target) -> None:
        if failures:
            raise failures.pop(0)
        arrived.append(to.run_id)

    one.put("first", send)
    one.put("second", send)
    assert one.close() == []
    assert arrived == ["run", "run"]
    assert one.lost == []
    assert caplog.text.count("does not accept the record at present") == 1


def test_what_one_step_lacks_costs_only_that_step(opened):
    arrived: list[str] = []
    one = opened()

    def missing(to: Target) -> None:
        raise FileNotFoundError(2, "No such file", "/a/b")

    def too_long(to: Target) -> None:
        raise Refusal(400, "the value is too long\nand more")

    def bug(to: Target) -> None:
        raise KeyError("x")

    for what, send in {"a file": missing, "a tag": too_long, "a bug": bug}.items():
        one.put(what, send)
    one.put("the rest", lambda to: arrived.append("rest"))
    with one.preparing("a table"):
        raise ValueError("not a table")
    assert one.close() == []
    assert arrived == ["rest"]
    assert one.lost[0] == "a table (not a table)"
    assert "a tag (the value is too long)" in one.lost
    assert len(one.lost) == 4


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [(404, "no such run", "RESOURCE_DOES_NOT_EXIST"), (400, "The run x must be in the 'active' state.", "")],
)
def test_a_run_that_is_gone_is_not_tried_again(opened, status, message, code):
    tries: list[int] = []
    one = opened(patience=60)

    def send(to: Target) -> None:
        tries.append(1)
        raise Refusal(status, message, code)

    one.put("metrics", send)
    one.put("the end", send)
    start = time.monotonic()
    assert one.close() == ["metrics", "the end"]
    assert time.monotonic() - start < 10
    assert len(tries) == 1
    assert one.gone


@pytest.mark.parametrize("trouble", ["hangs", "refuses", "is slow"])
def test_the_end_takes_limited_time_whatever_the_store_does(opened, trouble):
    release = threading.Event()
    one = opened(patience=0.2)

    def send(to: Target) -> None:
        if trouble == "hangs":
            release.wait(60)
        elif trouble == "refuses":
            raise Refusal(401, "log in")
        else:
            time.sleep(0.1)

    for number in range(40):
        one.put(f"step {number}", send)
    start = time.monotonic()
    left = one.close()
    assert time.monotonic() - start < 5
    assert left[-1] == "step 39"
    assert one.trouble
    assert gateway.hanging() or trouble != "hangs"
    release.set()


def test_large_files_have_the_time_they_need(opened, monkeypatch):
    monkeypatch.setattr(gateway, "SLOWEST", 1000)
    one = opened(patience=0.05)
    one.put("a policy", lambda to: time.sleep(0.5), size=5000)
    assert one.close() == []


def test_a_call_has_a_limit_and_keeps_its_error():
    assert within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
    release = threading.Event()
    with pytest.raises(NoAnswer, match="no answer"):
        within(0.05, lambda: release.wait(60))
    assert gateway.hanging()
    release.set()


def test_verdicts_of_a_local_store():
    from sqlalchemy.exc import OperationalError

    locked = MlflowException("locked")
    locked.__cause__ = OperationalError("insert", {}, Exception("database is locked"))
    assert judge(locked) == "again"
    assert judge(OSError(28, "No space left on device")) == "never"
    assert judge(NoAnswer("no")) == "again"


def test_nothing_secret_is_repeated():
    assert (
        first_line(Exception("https://me:hunter2@example.org is away\nmore"))
        == "https://me:[redacted]@example.org is away"
    )
    assert first_line(ValueError()) == "ValueError"


class Store:
    """A client that remembers, and can stop answering."""

    def __init__(self, name: str) -> None:
        self.name, self.away, self.calls = name, False, list[tuple[Any, ...]]()

    def create_run(self, experiment: str, *, start_time: int | None, tags: dict[str, str], run_name: str) -> Any:
        self._take("create", tags, start_time)
        info = SimpleNamespace(run_id=f"{self.name}-run", start_time=start_time or 123)
        return SimpleNamespace(info=info)

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        self._take("tag", run_id, name, value)

    def set_terminated(self, run_id: str, status: str) -> None:
        self._take("end", run_id, status)

    def _take(self, *call: Any) -> None:
        if self.away:
            raise requests.ConnectionError("refused")
        self.calls.append(call)


@pytest.mark.parametrize("dies", ["never", "in the middle", "and so does the other"])
def test_a_record_is_whole_in_one_of_the_stores(dies, monkeypatch, tmp_path):
    server, offline = Store("server"), Store("offline")
    monkeypatch.setattr(delivery, "connect", lambda *_, **__: Connection(offline, "sqlite:///o.db", "2", True))
    record = RunDelivery(Connection(server, "http://server", "1"), {"a": "b"}, "name", patience=0.2)
    record.gateway.put("one", lambda to: to.client.set_tag(to.run_id, "one", "1"))
    while not record.gateway._next:
        time.sleep(0.005)
    server.away = dies != "never"
    offline.away = dies == "and so does the other"
    record.gateway.put("two", lambda to: to.client.set_tag(to.run_id, "two", "2"))
    troubles = record.finish("FINISHED", MlflowConfiguration(), tmp_path)
    if dies == "never":
        assert troubles == []
        assert server.calls[-1] == ("end", "server-run", "FINISHED")
    elif dies == "in the middle":
        assert offline.calls == [
            ("create", {"a": "b", REPLACES: "server-run"}, 123),
            ("tag", "offline-run", "one", "1"),
            ("tag", "offline-run", "two", "2"),
            ("end", "offline-run", "FINISHED"),
        ]
        assert "'kedro lineage upload' sends it" in troubles[0]
        assert "refused" in troubles[0]
    else:
        assert "two, the end of the run are lost" in troubles[0]
