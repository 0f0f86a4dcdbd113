"""The web server of a study: one page, its questions and answers as JSON, the clips by opaque names."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vr_pipeline.annotation.media import browser_clip
from vr_pipeline.annotation.session import AnnotationSession, NotYours, OutOfDate
from vr_pipeline.annotation.store import AlreadyAnswered
from vr_pipeline.preferences.journal import Choice
from vr_pipeline.terminal import visible
from vr_pipeline.video.read import VideoReadError

_KEY_COOKIE = "annotation_key"
MOST_BYTES = 65_536
"""Limit of the body of a request; an answer takes some 300 bytes."""
_Name = Annotated[str, Query(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    annotator: str = Field(min_length=1, max_length=200)


class Answer(_Body):
    """An answer as the page sends it."""

    label: str = Field(pattern=r"^[0-9a-zA-Z-]{8,64}$")
    pair: str = Field(max_length=200)
    criterion: str = Field(max_length=200)
    choice: Choice
    left: str = Field(max_length=64)
    seconds: float = Field(ge=0, le=1e6)


class Skip(_Body):
    """A pair whose clips do not load."""

    pair: str = Field(max_length=200)


class OnlyKnownHosts:
    """Reject requests under another name, from another site's page, without the key where there is one, or too large.

    A page of a foreign site can reach a server on this machine by letting its own name point here (DNS rebinding);
    the Host header then holds that name. A form of a foreign site can send here without it; its Origin tells.

    Args:
        hosts: names, with ports, under which the server may be asked.
        key: a secret that the first address holds as ``?key=`` and a cookie keeps; None asks for none.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], key: str | None) -> None:
        self._app, self._hosts, self._key = app, hosts, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        problem = self._problem(scope, headers)
        if problem is not None:
            await JSONResponse({"detail": problem}, status_code=403)(scope, receive, send)
            return
        body = await _read_body(receive)
        if body is None:
            detail = f"The request is larger than {MOST_BYTES} bytes."
            await JSONResponse({"detail": detail}, status_code=413)(scope, receive, send)
            return
        rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_again() -> Message:
            return rest.pop() if rest else await receive()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self._response_headers(scope)]
            await send(message)

        await self._app(scope, receive_again, send_with_headers)

    def _problem(self, scope: Scope, headers: Mapping[str, str]) -> str | None:
        if headers.get("host", "").lower() not in self._hosts:
            return "This server does not answer under that name; see kedro annotate --allow-host."
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() not in self._hosts:
            return "Requests of other sites are rejected."
        followed_link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and not followed_link:
            return "Requests of other sites are rejected."
        if self._key is not None and not self._has_key(scope, headers):
            return "The address lacks its key: use the one that kedro annotate printed."
        return None

    def _has_key(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        assert self._key is not None
        cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
        given = [cookies.get(_KEY_COOKIE, ""), self._key_of(scope)]
        return any(hmac.compare_digest(one.encode(), self._key.encode()) for one in given)

    @staticmethod
    def _key_of(scope: Scope) -> str:
        return (parse_qs(scope["query_string"].decode("latin-1")).get("key") or [""])[0]

    def _response_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"DENY"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        if self._key is not None and self._key_of(scope):
            cookie = f"{_KEY_COOKIE}={self._key}; HttpOnly; SameSite=Strict; Path=/"
            headers.append((b"set-cookie", cookie.encode("ascii")))
        return headers


async def _read_body(receive: Receive) -> bytes | None:
    """Collect the body of a request; None where it is larger than the limit, which is found before it is held."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def create_app(session: AnnotationSession, *, hosts: frozenset[str], key: str | None = None) -> FastAPI:
    """Return the application; arguments as for :class:`OnlyKnownHosts`."""
    # No schema pages: they would load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, title="annotation")
    app.add_middleware(OnlyKnownHosts, hosts=hosts, key=key)

    for kind, status in ((ValueError, 422), (OutOfDate, 409), (AlreadyAnswered, 409), (NotYours, 403)):
        app.add_exception_handler(kind, partial(_rejected, status))

    @app.exception_handler(OSError)
    def disk_full(request: object, error: OSError) -> JSONResponse:
        return JSONResponse({"detail": f"the disk rejected it: {error.strerror or error}"}, status_code=507)

    @app.get("/")
    def page() -> HTMLResponse:
        return _html("page.html.j2", title=session.study.study, blind=bool(session.study.policies))

    @app.get("/results")
    def results_page(request: Request) -> HTMLResponse:
        return _html("results.html.j2", title=session.study.study, results=session.results(readers(request)))

    @app.get("/api/study")
    def study() -> dict[str, Any]:
        return session.describe()

    def proof(request: Request, name: str) -> str | None:
        return request.cookies.get(_cookie_of(name))

    def speaks_for(request: Request, name: str) -> bool:
        return session.secret.proves(name, proof(request, name) or "")

    def speaker(request: Request, annotator: str) -> str:
        name = session.check_annotator(annotator)
        if not speaks_for(request, name):
            raise NotYours(f"This browser does not answer for {name}. Load the page again and begin with your name.")
        return name

    def readers(request: Request) -> list[str]:
        return [name for name in session.annotators() if speaks_for(request, name)]

    @app.get("/join")
    def join(annotator: _Name, proof: Annotated[str, Query(max_length=64)]) -> Response:
        name = session.check_annotator(annotator)
        if not session.secret.proves(name, proof):
            raise NotYours("This personal link is not valid here; ask whoever started the server for a new one.")
        return _with_proof(RedirectResponse(f"./?name={quote(name)}", status_code=303), name, proof)

    @app.post("/api/begin")
    def begin(body: _Body, request: Request) -> Response:
        name = session.check_annotator(body.annotator)
        given = session.begin(name, proof(request, name))
        return _with_proof(JSONResponse(session.next_for(name) | {"link": personal_link(session, name)}), name, given)

    @app.get("/api/next")
    def next_question(annotator: _Name, request: Request) -> dict[str, Any]:
        return session.next_for(speaker(request, annotator))

    @app.post("/api/labels")
    def answer(body: Answer, request: Request) -> dict[str, Any]:
        name = speaker(request, body.annotator)
        session.answer(**body.model_dump())
        return session.next_for(name)

    @app.post("/api/undo")
    def undo(body: _Body, request: Request) -> dict[str, Any]:
        name = speaker(request, body.annotator)
        undone = session.undo(name)
        return {**session.next_for(name), "undone": undone}

    @app.post("/api/skip")
    def skip(body: Skip, request: Request) -> dict[str, Any]:
        name = speaker(request, body.annotator)
        session.skip(name, body.pair)
        return session.next_for(name)

    @app.get("/api/results")
    def results(request: Request) -> dict[str, Any]:
        return session.results(readers(request))

    @app.get("/clips/{token}")
    def clip(token: str) -> Response:
        path = session.clip_path(token)
        if path is None:
            raise HTTPException(404, "there is no such clip")
        try:
            found = browser_clip(path)
        except VideoReadError as error:
            raise HTTPException(422, error.problem) from error
        return Response(found.content, media_type=found.media_type, headers={"cache-control": "private, max-age=3600"})

    return app


def _rejected(status: int, request: object, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=status)


def personal_link(session: AnnotationSession, annotator: str) -> str:
    """Return the address, below the server's own, with which an annotator resumes in any browser."""
    return f"join?annotator={quote(annotator, safe='')}&proof={session.secret.proof_of(annotator)}"


def _cookie_of(annotator: str) -> str:
    return f"annotator_{hashlib.sha256(annotator.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _with_proof(response: Response, annotator: str, proof: str) -> Response:
    # A year: studies take weeks, and a browser that lost it needs the personal link.
    response.set_cookie(_cookie_of(annotator), proof, max_age=31_536_000, path="/", httponly=True, samesite="strict")
    return response


def known_hosts(host: str, port: int, extra: tuple[str, ...] = ()) -> frozenset[str]:
    """Return values of the Host header under which a server is asked; ``extra`` are names, with or without a port."""
    names = {"127.0.0.1", "localhost", "[::1]"} if is_loopback(host) else {host}
    with_ports = {f"{name}:{port}" for name in names}
    if port == 80:
        with_ports |= names
    for name in extra:
        with_ports |= {name.lower(), f"{name.lower()}:{port}"}
    return frozenset(with_ports)


def is_loopback(host: str) -> bool:
    """Return whether a server on this address can be reached from this machine alone."""
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _html(template: str, **values: Any) -> HTMLResponse:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("vr_pipeline.annotation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own, shared = PackageLoader("vr_pipeline.annotation"), PackageLoader("vr_pipeline.evaluation.report")
    # The look is that of the report page; what only this page has comes after it.
    style = "\n".join(loader.get_source(environment, "style.css")[0] for loader in (shared, own))
    script = own.get_source(environment, "script.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "media-src blob:; img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    text = environment.get_template(template).render(style=Markup(style), script=Markup(script), **values)
    return HTMLResponse(visible(text), headers={"content-security-policy": policy, "cache-control": "no-store"})
