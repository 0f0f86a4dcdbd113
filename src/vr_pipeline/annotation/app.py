"""Web server of a study: a page, questions and answers as JSON, clips by opaque names."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Scope

from vr_pipeline.annotation.grading import GradingSession
from vr_pipeline.annotation.media import browser_clip
from vr_pipeline.annotation.people import NotYours, OpenStudy, OutOfDate
from vr_pipeline.annotation.session import AnnotationSession
from vr_pipeline.annotation.store import AlreadyAnswered
from vr_pipeline.preferences.journal import Choice
from vr_pipeline.runtime.web import Gate, Rejection
from vr_pipeline.terminal import visible
from vr_pipeline.video.read import VideoReadError

_KEY_COOKIE = "annotation_key"
MOST_BYTES = 65_536
"""Largest body of a request in bytes; an answer has about 300."""
_IDENTIFIER = r"^[0-9a-zA-Z-]{8,64}$"
_Speaker = Callable[[Request, str], str]
_Name = Annotated[str, Query(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    annotator: str = Field(min_length=1, max_length=200)


class Answer(_Body):
    """An answer of the page."""

    label: str = Field(pattern=_IDENTIFIER)
    pair: str = Field(max_length=200)
    criterion: str = Field(max_length=200)
    choice: Choice
    left: str = Field(max_length=64)
    seconds: float = Field(ge=0, le=1e6)


class Skip(_Body):
    """A pair with a clip that does not load."""

    pair: str = Field(max_length=200)


class SkippedClip(_Body):
    """A clip that does not load, with all its open questions."""

    label: str = Field(pattern=_IDENTIFIER)
    item: str = Field(max_length=64)
    reason: str = Field(min_length=1, max_length=300)


class GradeAnswer(_Body):
    """A grade of the page, or a reason to skip the question."""

    label: str = Field(pattern=_IDENTIFIER)
    item: str = Field(max_length=64)
    criterion: str = Field(max_length=200)
    grade: str = Field(max_length=200)
    reason: str = Field(max_length=300)
    seconds: float = Field(ge=0, le=1e6)


class OnlyKnownHosts(Gate):
    """Reject requests to other host names, from other sites, without the key (if set), or that are too large.

    Args:
        app: the application.
        hosts: accepted names of the server, with ports.
        key: secret, given as ``?key=`` in the first address and then as a cookie; None for none.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str], key: str | None) -> None:
        super().__init__(app, hosts=hosts, max_bytes=MOST_BYTES, allow_hint="; see kedro annotate --allow-host")
        self._key = key

    def problem(self, scope: Scope, headers: Mapping[str, str]) -> Rejection | None:
        if (found := super().problem(scope, headers)) is not None:
            return found
        followed_link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and not followed_link:
            return Rejection(403, "Requests from other sites are rejected.")
        if self._key is not None and not self._has_key(scope, headers):
            return Rejection(403, "The address has no key: use the address printed by kedro annotate.")
        return None

    def _has_key(self, scope: Scope, headers: Mapping[str, str]) -> bool:
        assert self._key is not None
        cookies = dict(part.strip().partition("=")[::2] for part in headers.get("cookie", "").split(";"))
        given = [cookies.get(_KEY_COOKIE, ""), self._key_of(scope)]
        return any(hmac.compare_digest(one.encode(), self._key.encode()) for one in given)

    @staticmethod
    def _key_of(scope: Scope) -> str:
        return (parse_qs(scope["query_string"].decode("latin-1")).get("key") or [""])[0]

    def response_headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        headers = super().response_headers(scope)
        if self._key is not None and self._key_of(scope):
            cookie = f"{_KEY_COOKIE}={self._key}; HttpOnly; SameSite=Strict; Path=/"
            headers.append((b"set-cookie", cookie.encode("ascii")))
        return headers


def create_app(session: OpenStudy, *, hosts: frozenset[str], key: str | None = None) -> FastAPI:
    """Return the application; arguments as for :class:`OnlyKnownHosts`."""
    # No schema pages, since they load scripts from other sites.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, title="annotation")
    app.add_middleware(OnlyKnownHosts, hosts=hosts, key=key)

    for kind, status in ((ValueError, 422), (OutOfDate, 409), (AlreadyAnswered, 409), (NotYours, 403)):
        app.add_exception_handler(kind, partial(_rejected, status))

    @app.exception_handler(OSError)
    def disk_full(request: object, error: OSError) -> JSONResponse:
        return JSONResponse({"detail": f"the answer could not be written: {error.strerror or error}"}, status_code=507)

    @app.get("/")
    def page() -> HTMLResponse:
        if isinstance(session, GradingSession):
            return _html("grade.html.j2", "grades.js", title=session.study.study)
        return _html("page.html.j2", "pairs.js", title=session.study.study, blind=bool(session.study.policies))

    @app.get("/results")
    def results_page(request: Request) -> HTMLResponse:
        page = "grade_results.html.j2" if isinstance(session, GradingSession) else "results.html.j2"
        return _html(page, None, title=session.study.study, results=session.results(readers(request)))

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
            raise NotYours(f"This browser has not started as {name}. Load the page again and enter your name.")
        return name

    def readers(request: Request) -> list[str]:
        return [name for name in session.annotators() if speaks_for(request, name)]

    @app.get("/join")
    def join(annotator: _Name, proof: Annotated[str, Query(max_length=64)]) -> Response:
        name = session.check_annotator(annotator)
        if not session.secret.proves(name, proof):
            raise NotYours("This personal link is not valid; ask the person who started the server for a new one.")
        return _with_proof(RedirectResponse(f"./?name={quote(name)}", status_code=303), name, proof)

    @app.post("/api/begin")
    def begin(body: _Body, request: Request) -> Response:
        name = session.check_annotator(body.annotator)
        given = session.begin(name, proof(request, name))
        return _with_proof(JSONResponse(session.next_for(name) | {"link": personal_link(session, name)}), name, given)

    @app.get("/api/next")
    def next_question(annotator: _Name, request: Request) -> dict[str, Any]:
        return session.next_for(speaker(request, annotator))

    @app.post("/api/undo")
    def undo(body: _Body, request: Request) -> dict[str, Any]:
        name = speaker(request, body.annotator)
        undone = session.undo(name)
        return {**session.next_for(name), "undone": undone}

    @app.get("/api/results")
    def results(request: Request) -> dict[str, Any]:
        return session.results(readers(request))

    @app.get("/clips/{token}")
    def clip(token: str) -> Response:
        path = session.clip_path(token)
        if path is None:
            raise HTTPException(404, "clip not found")
        try:
            found = browser_clip(path)
        except VideoReadError as error:
            raise HTTPException(422, error.problem) from error
        return Response(found.content, media_type=found.media_type, headers={"cache-control": "private, max-age=3600"})

    if isinstance(session, GradingSession):
        _grade_routes(app, session, speaker)
    elif isinstance(session, AnnotationSession):
        _pair_routes(app, session, speaker)
    return app


def _pair_routes(app: FastAPI, session: AnnotationSession, speaker: _Speaker) -> None:
    @app.post("/api/labels")
    def answer(body: Answer, request: Request) -> dict[str, Any]:
        name = speaker(request, body.annotator)
        session.answer(**body.model_dump())
        return session.next_for(name)

    @app.post("/api/skip")
    def skip(body: Skip, request: Request) -> dict[str, Any]:
        name = speaker(request, body.annotator)
        session.skip(name, body.pair)
        return session.next_for(name)


def _grade_routes(app: FastAPI, session: GradingSession, speaker: _Speaker) -> None:
    @app.post("/api/labels")
    def answer(body: GradeAnswer, request: Request) -> dict[str, Any]:
        name = speaker(request, body.annotator)
        feedback = session.answer(**body.model_dump())
        return {**session.next_for(name), "feedback": feedback}

    @app.post("/api/skip")
    def skip(body: SkippedClip, request: Request) -> dict[str, Any]:
        name = speaker(request, body.annotator)
        session.skip(**body.model_dump())
        return session.next_for(name)


def _rejected(status: int, request: object, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=status)


def personal_link(session: OpenStudy, annotator: str) -> str:
    """Return the address, relative to the server's, with which an annotator resumes in any browser."""
    return f"join?annotator={quote(annotator, safe='')}&proof={session.secret.proof_of(annotator)}"


def _cookie_of(annotator: str) -> str:
    return f"annotator_{hashlib.sha256(annotator.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _with_proof(response: Response, annotator: str, proof: str) -> Response:
    # One year: without the cookie, a browser needs the personal link.
    response.set_cookie(_cookie_of(annotator), proof, max_age=31_536_000, path="/", httponly=True, samesite="strict")
    return response


def _html(template: str, script_name: str | None, **values: Any) -> HTMLResponse:
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
    # The style of the report page, then that of this page.
    style = "\n".join(loader.get_source(environment, "style.css")[0] for loader in (shared, own))
    parts = () if script_name is None else ("shared.js", script_name)
    content = "".join(own.get_source(environment, part)[0] for part in parts)
    script = f'"use strict";\n(function () {{\n{content}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "media-src blob:; img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    text = environment.get_template(template).render(style=Markup(style), script=Markup(script), **values)
    return HTMLResponse(visible(text), headers={"content-security-policy": policy, "cache-control": "no-store"})
