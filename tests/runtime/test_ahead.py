"""Reading ahead: in order, bounded, errors where they belong."""

from __future__ import annotations

import pickle
import threading

import pytest

from vr_pipeline.runtime.ahead import ReadAhead
from vr_pipeline.work import WorkItem, WorkPlan, made_in_turn


def test_what_was_started_is_read_in_another_thread_and_taken_once() -> None:
    ahead = ReadAhead[int]()
    assert ahead.take("a") is None
    ahead.start("a", threading.get_ident)
    assert ahead.take("a") not in (None, threading.get_ident())
    assert ahead.take("a") is None


def test_the_same_key_is_read_once_and_another_replaces_it() -> None:
    ahead, read = ReadAhead[str](), []

    def reading(name: str) -> str:
        read.append(name)
        return name

    for name in ("a", "a", "b"):
        ahead.start(name, lambda name=name: reading(name))
    assert ahead.take("a") is None
    assert ahead.take("b") == "b"
    assert sorted(read) == ["a", "b"]


def test_an_error_comes_when_the_value_is_taken() -> None:
    ahead = ReadAhead[str]()
    ahead.start("a", lambda: "x"[1])
    with pytest.raises(IndexError):
        ahead.take("a")
    assert ahead.take("a") is None


def test_a_copy_has_nothing_that_is_being_read() -> None:
    ahead, held = ReadAhead[str](), threading.Event()
    ahead.start("a", lambda: str(held.wait(60)))
    assert pickle.loads(pickle.dumps(ahead)).take("a") is None
    held.set()
    assert ahead.take("a") == "True"


def test_the_thread_does_not_keep_the_process_alive() -> None:
    ahead, held = ReadAhead[str](), threading.Event()
    ahead.start("slow", lambda: str(held.wait(60)))
    [reading] = [thread for thread in threading.enumerate() if thread.name == "reading slow"]
    assert reading.daemon
    held.set()


def test_batches_learn_what_comes_next() -> None:
    told: list[str] = []
    plan = WorkPlan(
        [WorkItem(name, "1") for name in "abc"],
        lambda context, batch: [f"{batch[0].key} after {''.join(told)}"],
        ahead=lambda context, batch: told.append(batch[0].key),
    )
    made = [contents[0] for _, contents in made_in_turn(plan, None, plan.batches(), [WorkItem("d", "1")])]
    assert made == ["a after b", "b after bc", "c after bcd"]
    told.clear()
    assert [contents for _, contents in made_in_turn(plan, None, plan.batches())][-1] == ["c after bc"]
