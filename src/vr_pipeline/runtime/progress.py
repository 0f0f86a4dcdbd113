"""Progress of long loops: a bar on a terminal, occasional plain lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sized
from time import monotonic
from typing import Any

from vr_pipeline.runtime.environment import on_terminal
from vr_pipeline.terminal import echo, one_line

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0
"""Log files get a line no more often than this."""

LONGEST_SILENCE = 300.0
"""Slow work reports after this many seconds, even if it is not yet a tenth further."""


class PlainProgress:
    """Progress as lines of text, for log files, pipes and notebooks; interface of tqdm's bar.

    A line appears when another tenth is done, but never sooner than :data:`SECONDS_BETWEEN_LINES` after the one before,
    and after :data:`LONGEST_SILENCE` in any case. The end is shown if there was a line before it. ``clock`` and
    ``write`` are for tests.
    """

    def __init__(
        self,
        items: Iterable[Any] = (),
        *,
        description: str,
        total: int | None = None,
        initial: int = 0,
        unit: str = "item",
        clock: Callable[[], float] = monotonic,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self._items = items
        self.description, self.total, self.unit = description, total, unit
        self.done = self._first = initial
        self._clock, self._write = clock, write or _write_line
        self._started = self._last_line = clock()
        self._shown_tenth = self._tenth()
        self._lines, self._shown, self._postfix = 0, initial, ""

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self._items:
                yield item
                self.update()

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def update(self, number: int = 1) -> None:
        """Count ``number`` items as done."""
        self.done += number
        silence = self._clock() - self._last_line
        further = self._tenth() > self._shown_tenth
        if silence >= LONGEST_SILENCE or (silence >= SECONDS_BETWEEN_LINES and further):
            self._show()

    def set_postfix(self, refresh: bool = True, **values: Any) -> None:
        """Show values at the end of the next line; ``refresh`` has no meaning here."""
        self._postfix = ", ".join(f"{name} {one_line(value)}" for name, value in values.items())

    def close(self) -> None:
        """Show the end, if lines were shown before."""
        if self._lines and self._shown != self.done:
            self._show()

    def _tenth(self) -> int:
        return 10 * self.done // self.total if self.total else self.done

    def _show(self) -> None:
        now = self._clock()
        made, seconds = self.done - self._first, now - self._started
        parts = [f"{self.done:,} of {self.total:,} ({self.done / self.total:.0%})" if self.total else f"{self.done:,}"]
        if made > 0 and seconds > 0:
            rate = made / seconds
            parts.append(f"{rate:.3g} {self.unit}s/s" if rate >= 1 else f"{1 / rate:.3g} s per {self.unit}")
            if self.total and self.done < self.total:
                parts.append(f"about {_duration((self.total - self.done) / rate)} left")
        if self._postfix:
            parts.append(self._postfix)
        self._write(f"{self.description}: {', '.join(parts)}")
        self._last_line, self._shown_tenth = now, self._tenth()
        self._lines, self._shown = self._lines + 1, self.done


def progress_bar(
    items: Iterable[Any] | None = None,
    *,
    description: str,
    total: int | None = None,
    initial: int = 0,
    unit: str = "item",
    leave: bool = True,
    disable: bool = False,
) -> Any:
    """Show the progress of a long loop; all loops of this project use this.

    Args:
        items: what to loop over; without it, call ``update(n)`` on the result, which is a context manager.
        description: what is being done, a few words.
        total: number of items including the initial ones; taken from ``items`` if that has a length.
        initial: items that were done before.
        unit: one item, in the singular.
        leave: keep the bar when the loop has ended; without it, loops of under two seconds show none at all.
        disable: show nothing, for example on all but the first of several processes.

    Returns:
        a tqdm bar on a terminal, otherwise a :class:`PlainProgress`; both can be looped over and have ``update``,
        ``set_postfix`` and ``close``.
    """
    description = one_line(description)
    if total is None and isinstance(items, Sized):
        total = initial + len(items)
    if disable or on_terminal():
        from tqdm import tqdm

        return tqdm(
            items,
            desc=description,
            total=total,
            initial=initial,
            unit=unit,
            disable=disable,
            leave=leave,
            delay=0 if leave else 2,
            dynamic_ncols=True,
        )
    return PlainProgress(items or (), description=description, total=total, initial=initial, unit=unit)


def _write_line(line: str) -> None:
    # With logging configured the line has a time, and the log file gets it too; commands that configure none show it
    # all the same.
    if logger.isEnabledFor(logging.INFO):
        logger.info("%s", line)
    else:
        echo(line, err=True)


def _duration(seconds: float) -> str:
    """Return seconds in words, rounded as an estimate."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
