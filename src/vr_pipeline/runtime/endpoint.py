"""A client of servers that speak OpenAI's HTTP protocol: pooled connections, retries, limits, a key that stays here.

One client may be used by several threads. Answers are JSON objects; what else comes back is an error.
"""

from __future__ import annotations

import email.utils
import json
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from vr_pipeline.config import Parameters
from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.runtime.web import is_loopback

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

logger = logging.getLogger(__name__)

_REJECTED = frozenset({400, 413, 415, 422, 500})
"""Statuses that may be about one request alone."""
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 3
_PIECE = 1 << 16
_MIB = 1 << 20


class EndpointParameters(Parameters):
    """Where a server is, and how it is asked."""

    url: str = Field("http://127.0.0.1:8000/v1", description="Address of the server's API, up to /v1.")
    api_key_variable: str | None = Field(
        None,
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
        description="Environment variable that has the server's key; null sends none. The key is written nowhere.",
    )
    allow_http: bool = Field(
        False, description="Consent to send clips, prompts and the key unencrypted to a server on another machine."
    )
    concurrency: int = Field(8, ge=1, le=1024, description="Most requests at a time, for each process of the run.")
    timeout_seconds: float = Field(120.0, gt=0, description="Longest time for one answer, in seconds.")
    retries: int = Field(5, ge=0, le=100, description="Further attempts after a failure that may pass.")
    first_wait_seconds: float = Field(
        0.5, ge=0, description="Wait before the second attempt, in seconds; doubled before each further one."
    )
    longest_wait_seconds: float = Field(
        60.0, ge=0, description="Longest wait before an attempt, in seconds, also where the server asks for more."
    )
    max_response_mib: float = Field(4.0, gt=0, description="Answers that are larger are rejected, in MiB.")

    @field_validator("url")
    @classmethod
    def _plain_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("write the server's address as http://host:port/v1 or https://host/v1")
        # Not quoted: they may hold a password.
        if parts.username is not None or parts.password is not None:
            raise ValueError("an address holds no user or password: name the key's variable in 'api_key_variable'")
        if parts.query or parts.fragment:
            raise ValueError("an address ends with its path: remove what follows '?' or '#'")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _encrypted(self) -> EndpointParameters:
        parts = urlsplit(self.url)
        if parts.scheme == "http" and not is_loopback(str(parts.hostname)) and not self.allow_http:
            raise ValueError(
                f"{self.url} is on another machine and not encrypted: use https, or set 'allow_http: true' if "
                "everybody on the network between may read clips, prompts and key"
            )
        return self


class EndpointUnavailable(PipelineError):
    """The server cannot be used now, whatever it is asked; the run stops, and what is finished is kept."""


class RequestRejected(InputError):
    """The server answers, but not this request; others may be answered."""


class Endpoint:
    """A connection to a server.

    Args:
        parameters: where it is, and how it is asked.
        field: name of the parameter block, for errors.

    Raises:
        InputError: the variable of the key is not set, or its value cannot be a key.
    """

    def __init__(self, parameters: EndpointParameters, *, field: str) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._parameters, self._field = parameters, field
        self._key = _key(parameters.api_key_variable, field)
        self._resume_at = 0.0
        self.retried = 0
        """Attempts that were repeated."""
        self._session = session = requests.Session()
        # Variables of the environment may name a proxy or certificates, neither of which is for this machine.
        session.trust_env = not is_loopback(str(urlsplit(parameters.url).hostname))
        session.cookies.set_policy(_no_cookies())
        pool = HTTPAdapter(pool_connections=1, pool_maxsize=parameters.concurrency, pool_block=True)
        for scheme in ("http://", "https://"):
            session.mount(scheme, pool)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def get(self, path: str) -> dict[str, Any] | None:
        """Return the JSON object at a path below the address, or None if the server has no such path.

        Raises:
            EndpointUnavailable, RequestRejected: see :meth:`post`.
        """
        return self._asked("GET", path, None, threading.Event(), missing=True)

    def post(self, path: str, body: Mapping[str, Any], stop: threading.Event) -> dict[str, Any]:
        """Send a JSON object to a path below the address; return the answer.

        Args:
            path: such as 'chat/completions'.
            body: what is sent.
            stop: ends waiting for a further attempt once it is set.

        Raises:
            EndpointUnavailable: the server does not answer, rejects the key, has no such path, or redirects elsewhere.
            RequestRejected: it rejects this request, or its answer is too large or no JSON object.
        """
        answer = self._asked("POST", path, json.dumps(body).encode(), stop)
        assert answer is not None
        return answer

    def _asked(
        self, method: str, path: str, body: bytes | None, stop: threading.Event, *, missing: bool = False
    ) -> dict[str, Any] | None:
        """Ask until there is an answer, the attempts are used up, or another attempt would not help."""
        import urllib3

        settings = self._parameters
        wait = settings.first_wait_seconds
        for attempt in range(settings.retries + 1):
            self._pause(stop)
            requested: float | None = None
            failure: PipelineError
            try:
                status, content, headers = self._sent(method, f"{settings.url}/{path}", body)
                if missing and status in (404, 405):
                    return None
                if status == 200:
                    return _object(content, self._field)
                failure = self._failure(status, content)
                if status not in _RETRIED:
                    raise failure
                requested = _retry_after(headers.get("Retry-After"))
            except _Malformed as error:
                failure = error
            # All that requests raises is an OSError, also what is wrong with an address.
            except (OSError, urllib3.exceptions.HTTPError) as error:
                failure = EndpointUnavailable(
                    f"The server at {settings.url} does not answer ({self._hidden(_kind(error))}). Start it, or "
                    f"correct '{self._field}.url'."
                )
            if attempt == settings.retries:
                break
            self.retried += 1
            logger.debug("Attempt %d failed: %s", attempt + 1, failure)
            seconds = min(max(wait, requested or 0.0), settings.longest_wait_seconds)
            if requested is not None:
                # The server has asked everybody to wait, not only this thread.
                self._resume_at = max(self._resume_at, time.monotonic() + seconds)
            elif stop.wait(seconds):
                break
            wait *= 2
        raise failure from None

    def _pause(self, stop: threading.Event) -> None:
        while (left := self._resume_at - time.monotonic()) > 0 and not stop.wait(left):
            pass

    def _sent(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes, Mapping[str, str]]:
        """Return status, content and headers of one attempt; follow redirects on the same server only."""
        until = time.monotonic() + self._parameters.timeout_seconds
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        for _ in range(_MOST_REDIRECTS + 1):
            with self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                auth=self._signed,
                timeout=self._parameters.timeout_seconds,
                allow_redirects=False,
                stream=True,
            ) as response:
                if response.status_code not in _REDIRECTS:
                    return response.status_code, self._content(response, until), response.headers
                target = urljoin(url, response.headers.get("Location", ""))
            if _origin(target) != _origin(url):
                raise EndpointUnavailable(
                    f"The server at {self._parameters.url} redirects to {self._hidden(_shown_origin(target))}. Nothing "
                    f"is sent there. If it is right, give that address as '{self._field}.url'."
                )
            if body is not None and response.status_code not in (307, 308):
                break
            url = target
        raise EndpointUnavailable(
            f"The server at {self._parameters.url} redirects requests without an end, or without their content. "
            f"Give its final address as '{self._field}.url'."
        )

    def _signed(self, request: PreparedRequest) -> PreparedRequest:
        # As a callable it also keeps requests from looking for a password in ~/.netrc.
        if self._key is not None:
            request.headers["Authorization"] = f"Bearer {self._key.get_secret_value()}"
        return request

    def _content(self, response: Response, until: float) -> bytes:
        limit = int(self._parameters.max_response_mib * _MIB)
        content = bytearray()
        while piece := response.raw.read1(_PIECE, decode_content=False):
            content += piece
            if len(content) > limit:
                raise RequestRejected(
                    f"the server's answer is larger than {self._parameters.max_response_mib:g} MiB",
                    remedy="Raise the limit if such answers are meant",
                    field=f"{self._field}.max_response_mib",
                )
            if time.monotonic() > until:
                raise TimeoutError(f"no whole answer within {self._parameters.timeout_seconds:g} s")
        return bytes(content)

    def _failure(self, status: int, content: bytes) -> PipelineError:
        message = self._hidden(_message(content))
        detail = f" ({message})" if message else ""
        if status in _REJECTED:
            return RequestRejected(
                f"the server answers {status}{detail}",
                remedy="See what it says; its log may say more",
                field=self._field,
            )
        remedy = {
            401: f"Set '{self._field}.api_key_variable' to the environment variable of a valid key",
            403: f"Set '{self._field}.api_key_variable' to the environment variable of a key with this right",
            404: f"Correct '{self._field}.url', which ends with /v1 as a rule, or the model's name",
            429: f"Lower '{self._field}.concurrency', or see what your account allows",
        }.get(status, "See the server's log, then run again: finished items are kept")
        return EndpointUnavailable(f"The server at {self._parameters.url} answers {status}{detail}. {remedy}.")

    def _hidden(self, text: str) -> str:
        """Return a text from outside without the key."""
        return text if self._key is None else text.replace(self._key.get_secret_value(), "[redacted]")


class _Malformed(RequestRejected):
    """The answer is no JSON object; another attempt may have a better one."""


def _object(content: bytes, field: str) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _Malformed(
            "the server's answer is no JSON object", remedy="Check that it speaks this protocol", field=field
        )
    return document


def _message(content: bytes) -> str:
    """Return the message of an error, in one short line."""
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        document = content.decode("utf-8", "replace")
    for name in ("error", "message"):
        if isinstance(document, dict):
            document = document.get(name, document)
    return " ".join(str(document).split())[:300] if document else ""


def _key(variable: str | None, field: str) -> SecretStr | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    # requests would quote a value that cannot stand in a header.
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise InputError(
            f"the environment variable {variable} holds no key"
            + (": it has other characters than keys have" if key else ""),
            remedy=f"Set it with 'export {variable}=...', or remove 'api_key_variable' if the server takes no key",
            field=f"{field}.api_key_variable",
        )
    return SecretStr(key)


def _retry_after(value: str | None) -> float | None:
    """Return seconds of a Retry-After header, which has a number or a date."""
    if not value:
        return None
    try:
        if re.fullmatch(r"\s*\d{1,9}(\.\d+)?\s*", value):
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None


def _shown_origin(url: str) -> str:
    scheme, host, port = _origin(url)
    return f"{scheme}://{host}:{port}" if host else "an unreadable address"


def _kind(error: BaseException) -> str:
    """Return what a failed connection is called; requests' own messages repeat addresses and objects."""
    named = {"ConnectTimeout": "no connection in time", "ReadTimeout": "no answer in time", "SSLError": "TLS failed"}
    if (name := type(error).__name__) in named:
        return named[name]
    return str(error) if isinstance(error, TimeoutError) else "the connection failed or was closed"


def _no_cookies() -> Any:
    from http.cookiejar import DefaultCookiePolicy

    return DefaultCookiePolicy(allowed_domains=[])
