"""The server as it runs: over sockets, under load, and how it ends."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.scoring import score_file
from vr_pipeline.runtime.web import address_of, known_hosts, listen
from vr_pipeline.serving.app import create_app
from vr_pipeline.serving.limits import ServingLimits
from vr_pipeline.serving.service import RewardService

ROOT = Path(__file__).resolve().parents[2]


def ask(address: str, body: bytes, timeout: float = 30) -> tuple[int, Any]:
    """Status and JSON of one request, as a client of the standard library sees them."""
    request = urllib.request.Request(f"{address}/score", body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@contextmanager
def running(service: RewardService, limits: ServingLimits) -> Iterator[tuple[str, uvicorn.Server]]:
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    app = create_app(service, limits, hosts=known_hosts("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield address_of("127.0.0.1", port), server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def test_good_requests_among_many_bad_ones(tiny_reward: ChecklistReward, served_clips: Path) -> None:
    limits = ServingLimits(max_mebibytes=1, waiting=64, batch=4)
    content = base64.b64encode((served_clips / "bright.mp4").read_bytes()).decode()
    good = {
        "dark": json.dumps({"path": "dark.mp4", "prompt": "a cat"}).encode(),
        "bright": json.dumps({"clip": content, "prompt": "a cat"}).encode(),
    }
    bad = [
        b"", b"{", b"\xff\x00", b"[" * 10_000, b'{"path": "../outside.mp4", "prompt": "a"}',
        b'{"path": "out.mp4", "prompt": "a"}', b'{"clip": "AAAA", "prompt": "a"}', b"x" * (3 * limits.max_bytes),
        json.dumps({"clip": content[: len(content) // 8 * 4], "prompt": "a"}).encode(),
    ]  # fmt: skip
    expected = {name: score_file(tiny_reward, served_clips / f"{name}.mp4", "a cat").total for name in good}
    asked = [(name, good[name]) if at % 3 == 0 else (None, bad[at % len(bad)]) for at, name in enumerate([*good] * 60)]
    with running(RewardService(tiny_reward, served_clips), limits) as (address, _), ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda one: ask(address, one[1]), asked))
        for (name, body), (status, reply) in zip(asked, replies, strict=True):
            if name is None:
                assert status in (400, 413, 422), body[:40]
                assert list(reply) == ["detail"]
            else:
                assert status == 200, reply
                assert reply["total"] == pytest.approx(expected[name], abs=1e-5)
        with urllib.request.urlopen(f"{address}/metrics") as reply:
            counts = reply.read().decode()
    assert f'vr_requests_total{{path="/score",status="200"}} {sum(name is not None for name, _ in asked)}' in counts
    assert 'status="500"' not in counts


def test_requests_in_progress_are_answered_when_the_server_ends(
    tiny_reward: ChecklistReward, served_clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = RewardService(tiny_reward, served_clips)
    answer, busy, go = service.answer, threading.Event(), threading.Event()

    def held(asked: Any) -> Any:
        busy.set()
        go.wait(20)
        return answer(asked)

    monkeypatch.setattr(service, "answer", held)
    body = json.dumps({"path": "dark.mp4", "prompt": "a cat"}).encode()
    with ThreadPoolExecutor(3) as pool, running(service, ServingLimits(batch=1)) as (address, server):
        waiting = [pool.submit(ask, address, body) for _ in range(3)]
        busy.wait(20)
        while True:  # until all are in
            with urllib.request.urlopen(f"{address}/metrics") as reply:
                if "vr_requests_in_progress 4" in reply.read().decode():
                    break
        server.should_exit = True
        while True:  # until it takes no more
            try:
                socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))).close()
            except OSError:
                break
            time.sleep(0.01)
        go.set()
        assert [one.result()[0] for one in waiting] == [200, 200, 200]


def test_a_body_that_never_ends_is_given_up(tiny_reward: ChecklistReward) -> None:
    with (
        running(RewardService(tiny_reward), ServingLimits(timeout=0.3)) as (address, _),
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as slow,
    ):
        host = address.removeprefix("http://")
        slow.sendall(f"POST /score HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert b"408" in slow.recv(1000)


def test_a_taken_port_is_one_sentence() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1, port {port}"):
            listen("127.0.0.1", port)
        with listen("127.0.0.1", port, 0) as other:
            assert other.getsockname()[1] != port
    assert [address_of(host, 1) for host in ("::1", "localhost")] == ["http://[::1]:1", "http://localhost:1"]


def test_the_command_serves_the_environments_reward_and_ends_well(tmp_path: Path, served_clips: Path) -> None:
    """As kedro score scores; SIGTERM ends it with status 0. On other addresses a token is needed."""
    command = [sys.executable, "-m", "kedro", "serve", "--port=0", "--host=0.0.0.0", f"--clips={served_clips}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        token = re.fullmatch(r"Token: (\S+)\n", process.stdout.readline())
        found = re.search(r"http://0\.0\.0\.0:(\d+)", process.stdout.readline())
        assert token is not None
        assert found is not None
        address = f"http://127.0.0.1:{found[1]}"
        body = json.dumps({"path": "bright.mp4", "prompt": "a red ball moves left"}).encode()
        headers = {"authorization": f"Bearer {token[1]}"}
        with urllib.request.urlopen(urllib.request.Request(f"{address}/score", body, headers), timeout=60) as reply:
            served = json.load(reply)
        assert ask(address, body)[0] == 401
    finally:
        process.send_signal(signal.SIGTERM)
        rest, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert rest == "Every request was answered.\n"
    assert "demo judge" in told
    assert len(served["dimensions"]) > 2
    assert len(served["moved"]) == 5
    assert served["total"] == pytest.approx(sum(served["dimensions"].values()))
