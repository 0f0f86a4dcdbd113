"""The connection of a run to a tracking store, whose failures never affect the run.

A run adds steps ("parameters", "artifacts of policy_mpo"). A separate thread sends them to the store in order while the
run works, and retries while the store is unavailable. At the end of the run, delivering the rest has a time limit. All
steps are kept, so that they can be sent to another store.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from vr_pipeline.lineage.secrets import redacted

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

SLOWEST = 1 << 20
"""Lowest accepted rate of files, bytes per second."""

PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between retries: the first and the longest pause."""

_TOTAL = 3
"""Time limit for all steps at the end of a run, in multiples of the patience per step."""

_UNAUTHORISED, _FORBIDDEN, _NOT_FOUND, _TIMEOUT, _TOO_MANY, _SERVER_ERROR = 401, 403, 404, 408, 429, 500
_Result = TypeVar("_Result")
_hanging: list[threading.Thread] = []


class NoAnswer(Exception):
    """A call of the store exceeded its time limit."""


@dataclass(frozen=True)
class Target:
    """A run in a store."""

    client: MlflowClient
    experiment: str
    run_id: str


@dataclass(frozen=True)
class Step:
    """One thing to record.

    Args:
        send: records it; called again after a failure.
    """

    what: str
    send: Callable[[Target], object]
    size: int = 0


class Gateway:
    """Sends steps to a store from a separate thread.

    Args:
        patience: seconds per step at the end of a run, in addition to the time for its files at :data:`SLOWEST`.
    """

    def __init__(self, target: Target, *, patience: float) -> None:
        self.target, self.patience = target, patience
        self.lost: list[str] = []
        self.gone = ""
        """Why the store will never accept this run; empty if it may."""
        self.trouble = ""
        """Why the store does not accept the current step; empty if it does."""
        self.steps: list[Step] = []
        self._next, self._pause, self._ended = 0, PAUSE, False
        self._changed = threading.Condition()
        # A daemon thread: a process that has to exit must not wait for a server.
        self._thread = threading.Thread(target=self._deliver, name="records to MLflow", daemon=True)
        self._thread.start()

    def put(self, what: str, send: Callable[[Target], object], size: int = 0) -> None:
        """Add a step; returns immediately."""
        with self._changed:
            self.steps.append(Step(what, send, size))
            self._changed.notify_all()

    @contextmanager
    def preparing(self, what: str) -> Iterator[None]:
        """Record an error within the block as a loss, so that it does not fail the run."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the results are safe in the catalog; the loss is reported
            self._lose(what, error)

    def close(self) -> list[str]:
        """Deliver the remaining steps within the time limit.

        Returns:
            names of steps that the store did not accept (see also :attr:`lost`).
        """
        end = monotonic() + self._allowance(self._next, _TOTAL)
        with self._changed:
            self._pause = PAUSE
            self._changed.notify_all()
            while self._next < len(self.steps) and not self.gone:
                position = self._next
                left = min(end, monotonic() + self._allowance(position, 1, position + 1)) - monotonic()
                self._changed.wait_for(lambda: self._next != position or self.gone, left)  # noqa: B023
                if self._next == position:
                    break
            self._ended = True
            self._changed.notify_all()
            undelivered = [step.what for step in self.steps[self._next :]]
        if undelivered and not self.trouble and not self.gone:
            self.trouble = f"no answer within {self.patience:g} s"
        self._thread.join(PAUSE if undelivered else None)
        if self._thread.is_alive():
            _hanging.append(self._thread)
        return list(dict.fromkeys(undelivered))

    def _allowance(self, start: int, times: float, end: int | None = None) -> float:
        return times * self.patience + sum(step.size for step in self.steps[start:end]) / SLOWEST

    def _deliver(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next < len(self.steps) or self._ended)
                if self._ended:
                    return
                step = self.steps[self._next]
            try:
                step.send(self.target)
            except Exception as error:  # noqa: BLE001 - whatever a store raises, the run continues
                self._failed(step, error)
            else:
                self._done()

    def _done(self) -> None:
        with self._changed:
            self._next, self._pause = self._next + 1, PAUSE
            if not self._ended:  # a late step does not change the result of close()
                self.trouble = ""
            self._changed.notify_all()

    def _failed(self, step: Step, error: Exception) -> None:
        verdict = judge(error)
        if verdict == "never":
            self._lose(step.what, error)
            self._done()
            return
        with self._changed:
            if not self.trouble and not self._ended:
                logger.warning("MLflow does not accept the record at present; trying again: %s", first_line(error))
            self.trouble = first_line(error)
            if verdict == "gone":
                self.gone, self._ended = self.trouble, True
            else:
                self._changed.wait(self._pause)
                self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self._changed.notify_all()

    def _lose(self, what: str, error: Exception) -> None:
        logger.debug("%s is not recorded", what, exc_info=error)
        with self._changed:
            self.lost.append(f"{what} ({first_line(error)})")


def judge(error: Exception) -> str:
    """Classify a failure: retry ``again``, ``never`` for this step, or ``gone`` for the whole run."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        text, status = str(error), error.get_http_status_code()
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in text:
            return "gone"
        if status in {_UNAUTHORISED, _FORBIDDEN, _NOT_FOUND, _TIMEOUT, _TOO_MANY} or status >= _SERVER_ERROR:
            return "again"
        # MLflow calls every SQLite error a bad request: locked, damaged, read-only, full.
        return "again" if error.__cause__ is not None and _is_of_database(error.__cause__) else "never"
    # Answers of something else, such as a proxy's page, and connection errors.
    if isinstance(error, requests.RequestException | json.JSONDecodeError | NoAnswer | ConnectionError | TimeoutError):
        return "again"
    if type(error).__name__ == "ParseError" or _is_of_database(error):
        return "again"
    return "never"


def _is_of_database(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in {"sqlalchemy", "sqlite3"}


def first_line(error: BaseException) -> str:
    """Return the first line of an error, else its type, without secrets."""
    return redacted(str(error).strip().partition("\n")[0][:500]) or type(error).__name__


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """Return the result of a call with a time limit in seconds.

    Raises:
        NoAnswer: it took longer; it continues in a daemon thread.
        Exception: any error of the call.
    """
    answer: Future[_Result] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised by result()
            answer.set_exception(error)

    thread = threading.Thread(target=run, name="call of MLflow", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answer.done():
        _hanging.append(thread)
        raise NoAnswer(f"no answer within {seconds:g} s")
    return answer.result()


def hanging() -> bool:
    """Return whether an abandoned call still runs, for which the process must not wait."""
    return any(thread.is_alive() for thread in _hanging)
