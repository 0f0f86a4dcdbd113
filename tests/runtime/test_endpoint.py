"""The client of servers: retries, limits, redirects, encryption, and a key that stays here."""

from __future__ import annotations

import email.utils
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from chat_server import KEY, ChatServer, Reply
from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.runtime.endpoint import Endpoint, EndpointParameters, EndpointUnavailable, RequestRejected

BODY = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}


def endpoint(server: ChatServer | str, **options: Any) -> Endpoint:
    url = server if isinstance(server, str) else server.url
    waits = {"first_wait_seconds": 0.01, "longest_wait_seconds": 0.05}
    return Endpoint(EndpointParameters(url=url, **{**waits, **options}), field="judge.server")


def post(server: ChatServer | str, **options: Any) -> dict[str, Any]:
    return endpoint(server, **options).post("chat/completions", BODY, threading.Event())


def first_then(first: Reply, times: int = 1) -> Callable[[dict[str, Any], int], Reply | dict[str, Any]]:
    return lambda request, attempt: first if attempt <= times else {"attempt": attempt}


@pytest.mark.parametrize(
    "trouble",
    [
        *(Reply(status, b'{"error": {"message": "later"}}') for status in (408, 429, 500, 502, 503, 504)),
        Reply(content=None),
        Reply(200, b'{"cut'),
        Reply(200, b"[1]"),
        Reply(200, b"\xff\xfe"),
        Reply(200, b"[" * 100_000),
        Reply(200, b"{}", {"Content-Length": "1000", "Connection": "close"}),
    ],
    ids=lambda reply: f"{reply.status}-{str(reply.content)[:12]}",
)
def test_what_may_pass_is_tried_again(trouble: Reply) -> None:
    with ChatServer(first_then(trouble, times=2)) as server:
        # A body that ends too early is waited for.
        assert post(server, timeout_seconds=5) == {"attempt": 3}
        assert len(server.requests) == 3


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    released = threading.Event()

    def slow(request: dict[str, Any], attempt: int) -> Any:
        if attempt == 1:
            released.wait(20)
        return {"attempt": attempt}

    with ChatServer(slow) as server:
        assert post(server, timeout_seconds=0.3) == {"attempt": 2}
        released.set()


def test_an_answer_that_comes_drop_by_drop_has_one_limit_of_time() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100_000)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                while not ended.wait(0.05):
                    try:
                        connection.sendall(b" ")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        before = time.monotonic()
        with pytest.raises(EndpointUnavailable, match=r"no whole answer within 0\.4 s"):
            post(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_seconds=0.4, retries=0)
        assert time.monotonic() - before < 10  # never 1000 drops of 0.05 s
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (400, RequestRejected, "answers 400 .too many images"),
        (413, RequestRejected, "answers 413"),
        (401, EndpointUnavailable, "api_key_variable"),
        (403, EndpointUnavailable, "api_key_variable"),
        (404, EndpointUnavailable, "the model's name"),
    ],
)
def test_what_stays_wrong_is_asked_once(status: int, kind: type[PipelineError], said: str) -> None:
    with ChatServer(lambda *_: Reply(status, b'{"error": {"message": "too many images"}}')) as server:
        with pytest.raises(kind, match=said):
            post(server)
        assert len(server.requests) == 1


def test_attempts_end_and_the_last_reason_is_named() -> None:
    with ChatServer(lambda *_: Reply(503, b"<html>busy\n now</html>")) as server:
        with pytest.raises(EndpointUnavailable, match=r"answers 503 .<html>busy now</html>.*finished items are kept"):
            post(server, retries=2)
        assert len(server.requests) == 3
    with pytest.raises(EndpointUnavailable, match=r"does not answer .*judge\.server\.url"):
        post(server, retries=1)  # it has ended


def test_waits_double_and_the_server_may_ask_for_more_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    now = [1000.0]

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(round(timeout or 0.0, 6))
            now[0] += timeout or 0.0
            return False

    monkeypatch.setattr("vr_pipeline.runtime.endpoint.time.monotonic", lambda: now[0])

    def waited(reply: Reply, **options: Any) -> list[float]:
        waits.clear()
        with ChatServer(lambda *_: reply) as server, pytest.raises(EndpointUnavailable):
            endpoint(server, **options).post("chat/completions", BODY, Stop())
        return list(waits)

    settings = {"retries": 4, "first_wait_seconds": 1.0, "longest_wait_seconds": 5.0}
    assert waited(Reply(503), **settings) == [1.0, 2.0, 4.0, 5.0]
    assert waited(Reply(429, headers={"Retry-After": "3"}), **settings) == [3.0, 3.0, 4.0, 5.0]
    assert waited(Reply(429, headers={"Retry-After": "3600"}), **settings) == [5.0] * 4
    for unusable in ("soon", "-1", "nan", "1e9", ""):
        assert waited(Reply(429, headers={"Retry-After": unusable}), **settings) == [1.0, 2.0, 4.0, 5.0]
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    (wait,) = waited(Reply(429, headers={"Retry-After": date}), retries=1, longest_wait_seconds=300.0)
    assert 20 < wait <= 30


def test_all_threads_wait_where_the_server_asks_for_it() -> None:
    times: list[float] = []

    def busy_once(request: dict[str, Any], attempt: int) -> Any:
        times.append(time.monotonic())
        return Reply(429, headers={"Retry-After": "0.4"}) if len(times) == 1 else {"well": True}

    with ChatServer(busy_once) as server:
        asked = endpoint(server, longest_wait_seconds=5.0)
        first = threading.Thread(target=asked.post, args=("chat/completions", BODY, threading.Event()))
        first.start()
        while not asked.retried:
            time.sleep(0.005)
        asked.post("chat/completions", BODY, threading.Event())
        first.join()
    assert min(times[1:]) - times[0] >= 0.35


def test_a_set_stop_ends_the_waiting() -> None:
    stop = threading.Event()
    stop.set()
    with ChatServer(lambda *_: Reply(503)) as server:
        with pytest.raises(EndpointUnavailable, match="503"):
            endpoint(server, first_wait_seconds=60.0, longest_wait_seconds=60.0).post("chat/completions", BODY, stop)
        assert len(server.requests) == 1


def test_large_answers_are_rejected_while_they_come() -> None:
    with ChatServer(lambda *_: Reply(200, b'{"a": "' + b"x" * 3_000_000 + b'"}')) as server:
        with pytest.raises(RequestRejected, match=r"larger than 1 MiB.*max_response_mib|max_response_mib.*larger"):
            post(server, max_response_mib=1.0)
        assert len(server.requests) == 1
        assert len(post(server, max_response_mib=4.0)["a"]) == 3_000_000


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nothing_is_sent_to_where_another_host_is_named(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    with ChatServer() as other:
        for target in (f"{other.url}/chat/completions", other.url.replace("http:", "https:"), "//127.0.0.1:1/x"):
            with ChatServer(lambda *_, place=target: Reply(status, headers={"Location": place})) as server:
                with pytest.raises(EndpointUnavailable, match=r"redirects to .*Nothing is sent there"):
                    post(server, api_key_variable="SOME_KEY")
                assert len(server.requests) == 1
        assert other.requests == []


def test_redirects_on_the_same_server_are_followed_where_they_keep_the_content() -> None:
    def moved(request: dict[str, Any], attempt: int) -> Any:
        return Reply(307, headers={"Location": "/v1/elsewhere"}) if attempt == 1 else {"messages": request["messages"]}

    with ChatServer(moved) as server:
        assert post(server) == BODY
        assert [request["path"] for request in server.requests] == ["/v1/chat/completions", "/v1/elsewhere"]
    for endless in (Reply(307, headers={"Location": "/v1/again"}), Reply(302, headers={"Location": "/v1/once"})):
        with ChatServer(lambda *_, reply=endless: reply) as server:
            with pytest.raises(EndpointUnavailable, match="without an end, or without their content"):
                post(server)
            assert len(server.requests) <= 4


def test_the_key_reaches_the_server_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_KEY", f" {KEY}\n")
    with ChatServer(lambda *_: {"well": True}, key=KEY) as server, caplog.at_level(logging.DEBUG):
        asked = endpoint(server, api_key_variable="SOME_KEY", retries=0)
        assert asked.post("chat/completions", BODY, threading.Event()) == {"well": True}
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
        server.key = "another"
        with pytest.raises(EndpointUnavailable) as error:  # this server repeats the key in its message
            asked.post("chat/completions", BODY, threading.Event())
    assert "wrong key Bearer [redacted]" in str(error.value)
    shown = [str(error.value), repr(asked), repr(vars(asked)), caplog.text, repr(asked._parameters)]
    assert not any(KEY in text for text in shown)


def test_no_password_of_a_file_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hidden\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    with ChatServer(lambda *_: {"well": True}) as server:
        post(server)
        assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "line\nbreak", "with\x00nul", "schlüssel"])
def test_a_variable_without_a_usable_key_is_rejected_without_its_value(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", value) if value and "\0" not in value else monkeypatch.delenv("SOME_KEY", False)
    with pytest.raises(InputError, match="SOME_KEY holds no key") as error:
        endpoint("http://127.0.0.1:1/v1", api_key_variable="SOME_KEY")
    assert value is None or not value.strip() or value not in str(error.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.org/v1", "not encrypted"),
        ("http://10.0.0.7:8000/v1", "not encrypted"),
        ("ftp://127.0.0.1/v1", "http://host:port/v1"),
        ("127.0.0.1:8000", "http://host:port/v1"),
        ("http://127.0.0.1:99999/v1", "http://host:port/v1"),
        ("http://[::1/v1", "http://host:port/v1"),
        ("https://me:word@example.org/v1", "no user or password"),
        ("https://example.org/v1?key=word", "ends with its path"),
    ],
)
def test_addresses_are_checked(url: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said) as error:
        EndpointParameters(url=url)
    # What follows the message is pydantic's own copy of the input, which the program does not print.
    assert "word" not in json.dumps([one["msg"].replace("password", "") for one in error.value.errors()])


@pytest.mark.parametrize("url", ["http://localhost:8000/v1/", "http://[::1]:8000/v1", "https://example.org/v1"])
def test_this_machine_and_encrypted_servers_need_no_consent(url: str) -> None:
    assert EndpointParameters(url=url).url == url.rstrip("/")
    assert EndpointParameters(url="http://10.0.0.7:8000/v1", allow_http=True).allow_http


def test_connections_are_kept_and_proxies_are_not_asked_about_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with ChatServer(lambda *_: Reply(200, b"{}", {"Set-Cookie": "a=b"})) as server:
        asked = endpoint(server)
        for _ in range(20):
            asked.post("chat/completions", BODY, threading.Event())
        assert len(server.connections) == 1
        assert not any("Cookie" in headers for headers in server.headers)


def test_a_server_without_a_path_is_told_apart_from_one_that_fails() -> None:
    with ChatServer(models=[]) as server:
        assert endpoint(server).get("models") is None
    with ChatServer(models=["a"]) as server:
        assert endpoint(server).get("models") == {"object": "list", "data": [{"id": "a"}]}
