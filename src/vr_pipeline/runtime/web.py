"""Basis of the project's web servers: sockets, permitted host names, limits of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    from socket import socket

    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Rejection(NamedTuple):
    """Why a request is rejected."""

    status: int
    detail: str
    headers: Mapping[str, str] = {}


class Gate:
    """Reject a request by its headers, then by the size of its body, before the application sees it.

    A page of a foreign site can reach a server on this machine by letting its own name point here (DNS rebinding);
    the Host header then holds that name. A form of a foreign site can send here without it; its Origin tells.

    Args:
        app: the application.
        hosts: names, with ports, under which the server may be asked; empty for any.
        max_bytes: limit of a body.
        allow_hint: ends the message about other names.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], max_bytes: int, allow_hint: str = "") -> None:
        self._app, self._hosts, self._max_bytes, self._allow_hint = app, hosts, max_bytes, allow_hint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        found = self.problem(scope, headers) or await self.body(receive)
        if isinstance(found, Rejection):
            await self.reject(found, scope, receive, send)
            return
        rest: list[Message] = [{"type": "http.request", "body": found, "more_body": False}]

        async def receive_again() -> Message:
            return rest.pop() if rest else await receive()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.response_headers(scope)]
            await send(message)

        await self._app(scope, receive_again, send_with_headers)

    def problem(self, scope: Scope, headers: Mapping[str, str]) -> Rejection | None:
        """Return what is wrong with a request's headers."""
        if not self._hosts:
            return None
        if headers.get("host", "").lower() not in self._hosts:
            return Rejection(403, f"This server does not answer under that name{self._allow_hint}.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() not in self._hosts:
            return Rejection(403, "Requests of other sites are rejected.")
        return None

    async def body(self, receive: Receive) -> bytes | Rejection:
        """Collect the body of a request, but never more than the limit."""
        held: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            held.append(message.get("body", b""))
            size += len(held[-1])
            if size > self._max_bytes:
                return Rejection(413, f"The request is larger than {self._max_bytes} bytes.")
            if not message.get("more_body", False):
                break
        return b"".join(held)

    async def reject(self, rejection: Rejection, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a rejected request."""
        from starlette.responses import JSONResponse

        answer = JSONResponse({"detail": rejection.detail}, rejection.status, headers=dict(rejection.headers))
        await answer(scope, receive, send)

    def response_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return the security headers of every answer."""
        return [
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]


def known_hosts(host: str, port: int, extra: tuple[str, ...] = ()) -> frozenset[str]:
    """Return the accepted values of the Host header; ``extra`` are names, with or without a port."""
    names = {"127.0.0.1", "localhost", "[::1]"} if is_loopback(host) else {host}
    with_ports = {f"{name}:{port}" for name in names}
    if port == 80:
        with_ports |= names
    for name in extra:
        with_ports |= {name.lower(), f"{name.lower()}:{port}"}
    return frozenset(with_ports)


def is_loopback(host: str) -> bool:
    """Return whether a server on this address is reachable only from this machine."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def listen(host: str, *ports: int) -> socket:
    """Return a socket that listens on the first free port of these; 0 is any.

    Raises:
        InputError: none is free, or the address is not this machine's.
    """
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
            return listener
        except OSError as error:
            listener.close()
            problem = error
    raise InputError(
        f"cannot listen on {host}, port {port} ({problem.strerror})",
        remedy="choose another port, or omit --port",
        field="--port",
    )


def address_of(host: str, port: int) -> str:
    """Return the URL of a server."""
    return f"http://{'localhost' if host == 'localhost' else f'[{host}]' if ':' in host else host}:{port}"
