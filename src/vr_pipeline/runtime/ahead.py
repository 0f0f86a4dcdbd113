"""Reading of what is needed next in a thread, while the model computes."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class ReadAhead(Generic[Value]):
    """Values that are read before they are needed, of one key at a time, which bounds the memory.

    An error of reading is raised where the value is taken. The thread ends with the process, so nothing waits for it
    after a kill. Pickling leaves out what is being read.
    """

    def __init__(self) -> None:
        self._next: tuple[str, Future[Value]] | None = None

    def start(self, key: str, read: Callable[[], Value]) -> None:
        """Read the value of a key in a thread; another one that was started and not taken is dropped."""
        if self._next is not None and self._next[0] == key:
            return
        value: Future[Value] = Future()
        self._next = key, value
        Thread(target=_fill, args=(value, read), name=f"reading {key}", daemon=True).start()

    def take(self, key: str) -> Value | None:
        """Return the value of a key, once it is read; None if its reading was not started."""
        if self._next is None or self._next[0] != key:
            return None
        (_, value), self._next = self._next, None
        return value.result()

    def __getstate__(self) -> dict[str, Any]:
        return {"_next": None}


def _fill(value: Future[Value], read: Callable[[], Value]) -> None:
    try:
        value.set_result(read())
    except BaseException as error:  # noqa: BLE001 - raised by take()
        value.set_exception(error)
