"""The web service around a reward: JSON over HTTP."""

from __future__ import annotations

import asyncio
import hmac
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vr_pipeline.errors import InputError
from vr_pipeline.runtime.endpoint import EndpointUnavailable
from vr_pipeline.runtime.web import Gate, Rejection
from vr_pipeline.serving.batches import Batches, ServerClosing
from vr_pipeline.serving.limits import ServingLimits
from vr_pipeline.serving.metrics import CONTENT_TYPE, Metrics
from vr_pipeline.serving.requests import CompareRequest, ScoreRequest, parsed
from vr_pipeline.serving.service import Comparison, RewardService, Scoring

logger = logging.getLogger(__name__)

PATHS = ("/score", "/compare", "/health", "/metrics")
_RETRY = {"retry-after": "1"}
_NO_JUDGE = "The judge's server is not usable at the moment; the reason is in this server's log."
_DRAINED = 4
"""A rejected body is received and discarded up to this multiple of the limit, so that its sender reads the answer."""


class ServingGate(Gate):
    """Count requests, and reject those that are too many, too large, too slow, or without the token.

    Args:
        app: the application.
        hosts: names, with ports, under which the server may be asked; empty for any.
        token: what ``Authorization: Bearer`` has to hold; None asks for none. ``/health`` needs none.
        limits: how much is taken.
        metrics: where requests are counted.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str], token: str | None, limits: ServingLimits, metrics: Metrics
    ) -> None:
        super().__init__(app, hosts=hosts, max_bytes=limits.max_bytes)
        self._token, self._limits, self._metrics = token, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        started, status, whole = time.monotonic(), 500, False

        async def once() -> Message:
            nonlocal whole
            if whole:
                return {"type": "http.disconnect"}
            message = await receive()
            whole = not message.get("more_body", False)
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self._metrics.in_progress += 1
        try:
            await super().__call__(scope, once, watched)
        finally:
            self._metrics.in_progress -= 1
            path = scope["path"] if scope["path"] in PATHS else "other"
            self._metrics.request(path, status, time.monotonic() - started)

    def problem(self, scope: Scope, headers: Mapping[str, str]) -> Rejection | None:
        if (found := super().problem(scope, headers)) is not None:
            return found
        if self._token is not None and scope["path"] != "/health":
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                return Rejection(401, "The header 'Authorization: Bearer TOKEN' is missing or wrong.")
        if scope["method"] == "POST" and self._metrics.in_progress > self._limits.waiting:
            return Rejection(429, f"{self._limits.waiting} requests are in progress. Try again in a moment.", _RETRY)
        return None

    async def body(self, receive: Receive) -> bytes | Rejection:
        try:
            async with asyncio.timeout(self._limits.timeout):
                return await super().body(receive)
        except TimeoutError:
            return Rejection(408, f"The request did not arrive within {self._limits.timeout:g} seconds.")

    async def reject(self, rejection: Rejection, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the rest of the body first: a sender whose connection is cut cannot read the reason."""
        left = _DRAINED * self._limits.max_bytes
        try:
            async with asyncio.timeout(self._limits.timeout):
                while rejection.status != 408 and left > 0 and (message := await receive())["type"] == "http.request":
                    left -= len(message.get("body", b""))
        except TimeoutError:
            pass
        await super().reject(rejection, scope, receive, send)


def create_app(
    service: RewardService, limits: ServingLimits, *, hosts: frozenset[str] = frozenset(), token: str | None = None
) -> FastAPI:
    """Return the application; arguments as for :class:`ServingGate`."""
    metrics = Metrics()
    batches: Batches[Scoring | Comparison, dict[str, Any]] = Batches(service.answer, limits.batch, metrics.batch)
    readers = ThreadPoolExecutor(limits.readers, thread_name_prefix="reader")
    # Frames in memory: of clips that are scored, and of those that come next.
    room = asyncio.Semaphore(2 * limits.batch)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        # Requests in progress have been answered when the server comes here to end.
        running = asyncio.create_task(batches.run())
        with tempfile.TemporaryDirectory(prefix="vr-serve-") as folder:
            app.state.scratch, app.state.running = Path(folder), running
            yield
            running.cancel()
            await asyncio.wait([running])
            readers.shutdown(wait=True, cancel_futures=True)

    # No schema pages: they would load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, title="reward", lifespan=life)
    app.add_middleware(ServingGate, hosts=hosts, token=token, limits=limits, metrics=metrics)
    app.add_exception_handler(InputError, _unusable)
    too_late = Rejection(504, f"No answer within {limits.timeout:g} seconds.")
    app.add_exception_handler(TimeoutError, partial(_rejected, too_late))
    app.add_exception_handler(ServerClosing, partial(_rejected, Rejection(503, "The server is stopping.", _RETRY)))
    app.add_exception_handler(EndpointUnavailable, partial(_rejected, Rejection(503, _NO_JUDGE, _RETRY)))
    app.add_exception_handler(OSError, partial(_rejected, Rejection(503, "Writing to disk failed.", _RETRY)))
    app.add_exception_handler(Exception, partial(_rejected, Rejection(500, "Internal error; see the server's log.")))

    def read(body: bytes, kind: type[ScoreRequest] | type[CompareRequest], scratch: Path) -> Any:
        asked = parsed(body, kind)
        return asked if isinstance(asked, Rejection) else service.read(asked, scratch)

    async def answered(request: Request, kind: type[ScoreRequest] | type[CompareRequest]) -> Response:
        body = await request.body()
        async with asyncio.timeout(limits.timeout):
            scratch = Path(tempfile.mkdtemp(dir=app.state.scratch))
            try:
                async with room:
                    with batches.coming():
                        asked = await asyncio.get_running_loop().run_in_executor(readers, read, body, kind, scratch)
                    if isinstance(asked, Rejection):
                        return JSONResponse({"detail": asked.detail}, asked.status)
                    return JSONResponse(await batches.answer(asked))
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    @app.post("/score")
    async def score(request: Request) -> Response:
        return await answered(request, ScoreRequest)

    @app.post("/compare")
    async def compare(request: Request) -> Response:
        return await answered(request, CompareRequest)

    @app.get("/health")
    async def health() -> Response:
        alive = not app.state.running.done()
        return JSONResponse({"status": "ok" if alive else "failed", **service.about}, 200 if alive else 503)

    @app.get("/metrics")
    async def counts() -> Response:
        return PlainTextResponse(metrics.text(), media_type=CONTENT_TYPE)

    return app


def _unusable(request: object, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)


def _rejected(rejection: Rejection, request: object, error: Exception) -> JSONResponse:
    if rejection.status in (500, 503):
        logger.error("A request failed", exc_info=error)
    return JSONResponse({"detail": rejection.detail}, rejection.status, headers=dict(rejection.headers))
