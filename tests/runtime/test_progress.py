"""Progress of long loops, on terminals and elsewhere."""

from __future__ import annotations

import io
import logging
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.runtime.progress import LONGEST_SILENCE, SECONDS_BETWEEN_LINES, PlainProgress, progress_bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(times: list[float], total: int | None, initial: int = 0) -> list[tuple[float, str]]:
    """Lines with the moment they were written, for items that end at the given moments."""
    now = [0.0]
    lines: list[tuple[float, str]] = []
    bar: PlainProgress = PlainProgress(
        description="clips",
        total=total,
        initial=initial,
        clock=lambda: now[0],
        write=lambda line: lines.append((now[0], line)),
    )
    with bar:
        for time in times:
            now[0] = time
            bar.update()
    return lines


@given(st.lists(st.floats(0, 200), min_size=1, max_size=300), st.booleans())
def test_lines_keep_their_distance(steps, known):
    times = [sum(steps[: number + 1]) for number in range(len(steps))]
    lines = run(times, len(times) if known else None)
    moments = [0.0, *(moment for moment, _ in lines)]
    gaps = [after - before for before, after in pairwise(moments)]
    # Only the last line, which tells the end, may follow sooner.
    assert all(gap >= SECONDS_BETWEEN_LINES for gap in gaps[:-1])
    assert lines == [] or lines[-1][1].startswith(f"clips: {len(times):,}")
    # No silence is longer than its limit and the item that was under way.
    assert all(gap <= LONGEST_SILENCE + max(steps) + 1e-6 for gap in gaps)
    if known:
        assert len(lines) <= 11 + times[-1] / LONGEST_SILENCE


def test_short_work_is_silent():
    assert run([0.1 * number for number in range(100)], total=100) == []


def test_a_line_says_how_far_how_fast_and_how_long():
    lines = [text for _, text in run([20.0 * number for number in range(1, 7)], total=20, initial=10)]
    assert lines[0] == "clips: 12 of 20 (60%), 20 s per item, about 3 min left"
    assert lines[-1] == "clips: 16 of 20 (80%), 20 s per item, about 80 s left"


def test_postfix_is_told():
    now, lines = [0.0], []
    bar = PlainProgress(range(2), description="train", total=2, unit="step", clock=lambda: now[0], write=lines.append)
    for _ in bar:
        now[0] += 40.0
        bar.set_postfix(loss="0.5", refresh=False)
    assert lines == [
        "train: 1 of 2 (50%), 40 s per step, about 40 s left, loss 0.5",
        "train: 2 of 2 (100%), 40 s per step, loss 0.5",
    ]


def test_a_terminal_gets_a_moving_bar(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress_bar(range(5), description="five things")) == [0, 1, 2, 3, 4]
    assert "\r" in screen.getvalue()
    assert "five things: 100%" in screen.getvalue()
    assert "\x1b[3" not in screen.getvalue()  # no colour


@pytest.mark.parametrize("terminal", ["no", "dumb"])
def test_anything_else_gets_no_carriage_return(monkeypatch, terminal, caplog):
    screen = io.StringIO() if terminal == "no" else Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "dumb" if terminal == "dumb" else "xterm")
    monkeypatch.setattr("vr_pipeline.runtime.progress.SECONDS_BETWEEN_LINES", 0.0)
    logging.getLogger("vr_pipeline.runtime.progress").setLevel(logging.WARNING)
    try:
        assert list(progress_bar(iter("abc"), description="letters", total=3)) == ["a", "b", "c"]
    finally:
        logging.getLogger("vr_pipeline.runtime.progress").setLevel(logging.NOTSET)
    assert screen.getvalue().count("\n") == 3
    assert "\r" not in screen.getvalue()
    with caplog.at_level(logging.INFO, logger="vr_pipeline.runtime.progress"):
        list(progress_bar("abc", description="letters"))
    assert [record.message.partition(",")[0] for record in caplog.records][-1] == "letters: 3 of 3 (100%)"
    assert screen.getvalue().count("\n") == 3  # logging has told it; nothing twice


def test_nothing_is_shown_when_disabled(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress_bar(description="x", total=3, disable=True) as bar:
        bar.update(2)
        bar.set_postfix(loss=1)
    assert screen.getvalue() == ""
