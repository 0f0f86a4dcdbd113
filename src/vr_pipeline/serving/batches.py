"""Concurrent requests are answered in batches by one thread, which owns the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

LINGER = 0.02
"""Maximum wait in seconds of an idle model for announced items; while it is busy they accumulate anyway."""


class ServerClosing(Exception):
    """The server stopped before the request was answered."""


class _Asked(NamedTuple, Generic[Item, Answer]):
    item: Item
    answer: asyncio.Future[Answer]


class Batches(Generic[Item, Answer]):
    """Collects items into batches and returns each item's answer.

    Args:
        work: answers a batch, in order: per item its answer, or the error that its asker gets. It runs in a thread of
            its own, one batch at a time. If it raises, every item of the batch is tried alone.
        most: items in a batch.
        done: called with the size of every batch.
    """

    def __init__(
        self, work: Callable[[list[Item]], Sequence[Answer | Exception]], most: int, done: Callable[[int], None]
    ) -> None:
        self._work, self._most, self._done = work, most, done
        self._coming = 0
        self._asked: asyncio.Queue[_Asked[Item, Answer]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Announce an item for the length of the block; a batch waits for it."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def answer(self, item: Item) -> Answer:
        """Return the answer to an item, or raise its error.

        Raises:
            ServerClosing: :meth:`run` has ended.
        """
        asked = _Asked(item, asyncio.get_running_loop().create_future())
        self._asked.put_nowait(asked)
        return await asked.answer

    async def run(self) -> None:
        """Answer batches until cancelled; unanswered items then raise :class:`ServerClosing`."""
        batch: list[_Asked[Item, Answer]] = []
        try:
            while True:
                batch = await self._gather()
                await self._answer(batch)
        finally:
            self._thread.shutdown(wait=True)
            while not self._asked.empty():
                batch.append(self._asked.get_nowait())
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(ServerClosing("The server is stopping."))

    async def _gather(self) -> list[_Asked[Item, Answer]]:
        batch = [await self._asked.get()]
        until = asyncio.get_running_loop().time() + LINGER
        while len(batch) < self._most and (self._coming or not self._asked.empty()):
            try:
                async with asyncio.timeout_at(until):
                    batch.append(await self._asked.get())
            except TimeoutError:
                break
        return batch

    async def _answer(self, batch: Sequence[_Asked[Item, Answer]]) -> None:
        waiting = [asked for asked in batch if not asked.answer.done()]  # others gave up
        if not waiting:
            return
        future = asyncio.wrap_future(self._thread.submit(self._work, [asked.item for asked in waiting]))
        await asyncio.wait([future])
        error = future.exception()
        if error is not None and len(waiting) > 1:
            # One item is to blame: alone, each shows whether it is the one.
            for asked in waiting:
                await self._answer([asked])
            return
        self._done(len(waiting))
        answers = [error] if error is not None else future.result()
        for asked, answer in zip(waiting, answers, strict=True):
            if asked.answer.done():
                continue
            if isinstance(answer, BaseException):
                asked.answer.set_exception(answer)
            else:
                asked.answer.set_result(answer)
