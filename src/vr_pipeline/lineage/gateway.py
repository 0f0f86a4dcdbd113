"""The one way from a run to a tracking store: what the store does, or fails to do, never reaches the run.

A run hands over steps ("parameters", "artifacts of policy_mpo"). A thread of its own takes them to the store in their
order, while the run works; a store that is away for a while is tried again until it is back. At the end of the run
there is a limited time to deliver the rest. All steps are kept, so that they can be taken to another store afterwards.
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
"""Bytes a second: files of a store that takes fewer are given up."""

PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a store that is away is tried again: at first, and after many tries."""

_TOTAL = 3
"""All that is left at the end of a run may take this many times the patience of one step."""

_UNAUTHORISED, _FORBIDDEN, _NOT_FOUND, _TIMEOUT, _TOO_MANY, _SERVER_ERROR = 401, 403, 404, 408, 429, 500
_Result = TypeVar("_Result")
_hanging: list[threading.Thread] = []


class NoAnswer(Exception):
    """A call of the store took longer than the time it had."""


@dataclass(frozen=True)
class Target:
    """A run in a store, by the identifiers of its experiment and its own."""

    client: MlflowClient
    experiment: str
    run_id: str


@dataclass(frozen=True)
class Step:
    """One thing to record.

    Args:
        send: records it; may be called again after it has failed.
    """

    what: str
    send: Callable[[Target], object]
    size: int = 0


class Gateway:
    """Takes steps to a store from a thread of its own.

    Args:
        patience: seconds for one step at the end of a run, beyond the time for its files at :data:`SLOWEST`.
    """

    def __init__(self, target: Target, *, patience: float) -> None:
        self.target, self.patience = target, patience
        self.lost: list[str] = []
        self.gone = ""
        """Why the store will never take this run; empty as long as it may."""
        self.trouble = ""
        """Why the store does not take the present step; empty if it does."""
        self.steps: list[Step] = []
        self._next, self._pause, self._ended = 0, PAUSE, False
        self._changed = threading.Condition()
        # A daemon: a process that has to end at once must not wait for a server.
        self._thread = threading.Thread(target=self._deliver, name="records to MLflow", daemon=True)
        self._thread.start()

    def put(self, what: str, send: Callable[[Target], object], size: int = 0) -> None:
        """Hand over a step; returns at once."""
        with self._changed:
            self.steps.append(Step(what, send, size))
            self._changed.notify_all()

    @contextmanager
    def preparing(self, what: str) -> Iterator[None]:
        """Whatever fails while a step is made ready is a loss, and no failure of the run."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the results are safe in the catalog; the loss is reported
            self._lose(what, error)

    def close(self) -> list[str]:
        """Deliver what is left, for a limited time.

        Returns:
            in words, what the store did not take; empty if it has everything (but see :attr:`lost`).
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
            if not self._ended:  # a step that arrives after the end does not undo what the end found
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
                logger.warning("MLflow does not take the record for now: %s", first_line(error))
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
    """Return what a failure means: ``again`` later, ``never`` for this step, or ``gone`` for the whole run."""
    import requests
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        text, status = str(error), error.get_http_status_code()
        if error.error_code == "RESOURCE_DOES_NOT_EXIST" or "must be in the 'active' state" in text:
            return "gone"
        if status in {_UNAUTHORISED, _FORBIDDEN, _NOT_FOUND, _TIMEOUT, _TOO_MANY} or status >= _SERVER_ERROR:
            return "again"
        # Of an SQLite file MLflow calls everything a bad request: locked, damaged, read-only, full.
        return "again" if error.__cause__ is not None and _is_of_database(error.__cause__) else "never"
    # What is no answer of MLflow at all, such as a page of a proxy, and errors of the connection.
    if isinstance(error, requests.RequestException | json.JSONDecodeError | NoAnswer | ConnectionError | TimeoutError):
        return "again"
    if type(error).__name__ == "ParseError" or _is_of_database(error):
        return "again"
    return "never"


def _is_of_database(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in {"sqlalchemy", "sqlite3"}


def first_line(error: BaseException) -> str:
    """Return the first line of an error, or its type where it has none, without secrets."""
    return redacted(str(error).strip().partition("\n")[0][:500]) or type(error).__name__


def within(seconds: float, call: Callable[[], _Result]) -> _Result:
    """Return the result of a call that is given up after so many seconds.

    Raises:
        NoAnswer: it took longer; it continues in a thread that nothing waits for.
        Exception: whatever the call raises.
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
    """Whether a call that was given up still runs: the process must not wait for it at its end."""
    return any(thread.is_alive() for thread in _hanging)
