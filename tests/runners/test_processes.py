"""Nodes that need nothing of each other run at the same time, in processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.runners import DeviceRunner
from vr_pipeline.runners.config import InProcessRoute, ProcessesRoute
from vr_pipeline.runners.process_backend import groups
from vr_pipeline.runners.shipping import RemoteNodeError
from vr_pipeline.storage.turns import one_at_a_time

cloudpickle.register_pickle_by_value(sys.modules[__name__])
TOGETHER, ALONE = ProcessesRoute(at_once=2), InProcessRoute()


def node(function, sources, target, *, train: bool = True) -> Node:
    return Node(function, sources, target, name=f"make_{target}", tags=["train"] if train else [])


def meet(folder: str, own: str, other: str) -> int:
    """Return this process's number once the other node runs too; neither can end before the other has begun."""
    Path(folder, own).touch()
    while not Path(folder, other).exists():
        time.sleep(0.01)
    logging.getLogger("vr_pipeline.test").warning("%s met %s", own, other)
    return os.getpid()


def meet_b(folder: str) -> int:
    return meet(folder, "a", "b")


def meet_a(folder: str) -> int:
    return meet(folder, "b", "a")


def differ(first: int, second: int) -> list[int]:
    return [first, second, os.getpid()]


def wait_for_ever(folder: str) -> int:
    Path(folder, "waiting").touch()
    while True:
        time.sleep(0.01)


def reject(folder: str) -> int:
    while not Path(folder, "waiting").exists():
        time.sleep(0.01)
    raise InputError("the number is odd", remedy="give an even one")


def fail(folder: str) -> int:
    raise ValueError("an error of the program")


def number_of_process(folder: str) -> int:
    return os.getpid()


def die(folder: str) -> int:
    os._exit(3)


def runner() -> DeviceRunner:
    made = DeviceRunner()
    made.configure({"routes": {"train": {"backend": "processes"}}})
    return made


def run(folder: Path, *nodes: Node) -> dict[str, object]:
    catalog = DataCatalog({"folder": MemoryDataset(str(folder))})
    return {name: data.load() for name, data in runner().run(Pipeline([*nodes]), catalog).items()}


def test_two_nodes_run_at_the_same_time_and_their_logs_arrive(tmp_path, caplog):
    nodes = node(meet_b, "folder", "one"), node(meet_a, "folder", "two"), node(differ, ["one", "two"], "three")
    first, second, own = run(tmp_path, *nodes)["three"]
    assert own == os.getpid()
    assert len({first, second, own}) == 3
    assert {"a met b", "b met a"} <= {record.getMessage() for record in caplog.records}
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (reject, PipelineError, "the number is odd"),
        (fail, RemoteNodeError, "an error of the program"),
        (die, PipelineError, "The process of node 'make_two' died"),
    ],
)
def test_a_failure_stops_the_other_node(tmp_path, function, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, node(wait_for_ever, "folder", "one"), node(function, "folder", "two"))
    assert not multiprocessing.active_children()


def test_on_a_gpu_they_run_one_by_one(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = run(
        tmp_path, node(lambda folder: os.getpid(), "folder", "one"), node(lambda f: os.getpid(), "folder", "two")
    )
    assert set(found.values()) == {os.getpid()}


@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 7), max_size=2)), max_size=8), st.integers(1, 3))
def test_groups_keep_the_order_and_hold_only_independent_nodes(drawn, at_once):
    together = ProcessesRoute(at_once=at_once)
    nodes = []
    for number, (trains, needs) in enumerate(drawn):
        inputs = ["raw", *(f"made_{need}" for need in sorted(needs) if need < number)]
        one = Node(lambda *given: given, inputs, f"made_{number}", name=f"make_{number}")
        nodes.append((one, together if trains else ALONE))
    found = list(groups(nodes))
    assert [pair for group in found for pair in group] == nodes
    for group in found:
        made = {name for one, _ in group for name in one.outputs}
        assert len(group) == 1 or not made & {name for one, _ in group for name in one.inputs}
        assert len(group) == 1 or ({route.backend for _, route in group} == {"processes"} and len(group) <= at_once)
    for group, following in pairwise(found):
        # Nothing is split without a reason.
        one, route = following[0]
        made = {name for other, _ in group for name in other.outputs}
        assert len(group) == at_once or made & set(one.inputs) or not group[0][1] == route == together


def write_alone(folder: str, log: str) -> None:
    with one_at_a_time(Path(folder)):
        for word in ("begins", "ends"):
            with Path(log).open("a") as file:
                file.write(f"{word}\n")
            time.sleep(0.05)


def test_one_process_at_a_time_makes_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    arguments = str(tmp_path / "parent" / "clips"), str(tmp_path / "log")
    processes = [context.Process(target=write_alone, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "log").read_text().split() == ["begins", "ends"] * 3
