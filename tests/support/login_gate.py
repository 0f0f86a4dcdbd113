"""A login in front of a server, as a reverse proxy asks for it."""

from __future__ import annotations

import base64
import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

_OF_THE_CONNECTION = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


@contextmanager
def login_gate(port: int, target: int, user: str, password: str) -> Iterator[list[str]]:
    """Pass requests at ``port`` to ``target`` if they carry the login; yields the paths of those that did not."""
    expected = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    rejected: list[str] = []

    class Gate(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self._body()
            if self.headers.get("Authorization") != expected:
                rejected.append(self.path)
                self._answer(HTTPStatus.UNAUTHORIZED, [("WWW-Authenticate", "Basic")], b"Who are you?")
                return
            connection = http.client.HTTPConnection("127.0.0.1", target, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_CONNECTION}
            connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OF_THE_CONNECTION]
            self._answer(answer.status, kept, content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response(status)
            for name, value in [*headers, ("Content-Length", str(len(content)))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Gate) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield rejected
        finally:
            server.shutdown()
            thread.join()
