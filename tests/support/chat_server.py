"""A server of the chat protocol on this machine, whose answers are a function of what it is asked."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

MODEL = "stand-in/judge"
KEY = "not-a-real-key-4711-abcdef"
TOKENS = (*("Yes", " yes", "YES", "▁yes"), *("No", " no", "NO\n"), *(f"word{number}" for number in range(25)))
"""The whole vocabulary of the stand-in: more than a server returns."""


class Reply(NamedTuple):
    """What is sent back; ``content`` None closes the connection without an answer."""

    status: int = 200
    content: bytes | None = b""
    headers: Mapping[str, str] = {}


Answering = Callable[[dict[str, Any], int], "Reply | dict[str, Any]"]


def question_of(request: Mapping[str, Any]) -> str:
    """Return the text of a request."""
    return str(request["messages"][-1]["content"][-1]["text"])


def media_of(request: Mapping[str, Any]) -> list[tuple[str, bytes]]:
    """Return media type and content of what a request shows."""
    found = []
    for part in request["messages"][-1]["content"][:-1]:
        kind = part["type"]
        head, _, content = part[kind]["url"].partition(";base64,")
        found.append((head.removeprefix("data:"), base64.b64decode(content, validate=True)))
    return found


def pictures_of(request: Mapping[str, Any]) -> list[np.ndarray]:
    """Decode the images of a request."""
    from PIL import Image

    return [np.asarray(Image.open(io.BytesIO(content))) for _, content in media_of(request)]


def distribution(request: Mapping[str, Any]) -> dict[str, float]:
    """Return the probability of every token: a function of the media and the question alone."""
    asked = json.dumps(request["messages"]).encode()
    seed = int.from_bytes(hashlib.sha256(asked).digest()[:8], "big")
    logits = np.random.default_rng(seed).normal(size=len(TOKENS)) * 2
    logits[:7] += 3.0
    weights = np.exp(logits)
    return dict(zip(TOKENS, (weights / weights.sum()).tolist(), strict=True))


def completion(listed: list[tuple[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a chat completion whose first token has these most likely tokens with their log-probabilities."""
    entries = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in listed]
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "length"}
    choice["logprobs"] = {"content": [{"token": "x", "logprob": -1.0, "top_logprobs": entries}]}
    usage = {"prompt_tokens": 100, "completion_tokens": 1}
    return {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage, **more}


def top(masses: Mapping[str, float], count: int) -> list[tuple[str, float]]:
    """Return the most likely tokens with their log-probabilities."""
    ordered = sorted(masses.items(), key=lambda pair: -pair[1])[:count]
    return [(token, math.log(mass)) for token, mass in ordered]


def answered(request: dict[str, Any], attempt: int = 1) -> dict[str, Any]:
    """Answer as :func:`distribution` says."""
    return completion(top(distribution(request), request["top_logprobs"]))


class ChatServer:
    """A server on a free port of 127.0.0.1, in threads.

    Args:
        reply: called with a request and the number of times that this request has come, from 1.
        models: names that it lists; None for a server without a list.
        key: rejects requests with another key.
    """

    def __init__(self, reply: Answering = answered, models: list[str] | None = None, key: str | None = None) -> None:
        self.reply, self.models, self.key = reply, [MODEL] if models is None else models, key
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections: set[Any] = set()
        self.most_at_a_time = 0
        self._times: Counter[str] = Counter()
        self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def times(self, question: str) -> int:
        """Return how often a question was asked, about whatever."""
        return sum(question in question_of(request) for request in self.requests)

    def judge(self, **options: Any) -> dict[str, Any]:
        """Return a configuration of the judge behind this server; options of the block ``server`` without waits."""
        server = {
            "url": self.url,
            "first_wait_seconds": 0.01,
            "longest_wait_seconds": 0.05,
            **options.pop("server", {}),
        }
        return {"family": "openai_compatible", "path": MODEL, "server": server, **options}

    def _answer(self, path: str, headers: dict[str, str], body: bytes | None) -> Reply:
        if self.key is not None and headers.get("Authorization") != f"Bearer {self.key}":
            return Reply(401, json.dumps({"error": {"message": f"wrong key {headers.get('Authorization')}"}}).encode())
        if body is None:
            listed = {"object": "list", "data": [{"id": name} for name in self.models]}
            return Reply(200, json.dumps(listed).encode()) if path == "/v1/models" and self.models else Reply(404)
        request = json.loads(body)
        with self._lock:
            self.requests.append({"path": path, **request})
            self.headers.append(headers)
            digest = hashlib.sha256(body).hexdigest()
            self._times[digest] += 1
            attempt = self._times[digest]
            self._now += 1
            self.most_at_a_time = max(self.most_at_a_time, self._now)
        try:
            found = self.reply(request, attempt)
        finally:
            with self._lock:
                self._now -= 1
        return found if isinstance(found, Reply) else Reply(200, json.dumps(found).encode())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _do(self, body: bytes | None) -> None:
                chat.connections.add(self.client_address)
                reply = chat._answer(self.path, dict(self.headers), body)
                if reply.content is None:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(reply.content)
                except ConnectionError:  # the client has seen enough
                    self.close_connection = True

            def do_GET(self) -> None:
                self._do(None)

            def do_POST(self) -> None:
                self._do(self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_: object) -> None:
                return None

        return Handler
