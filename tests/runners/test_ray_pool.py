"""Many small items, placement and clips over a pool of Ray workers."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fresh_process import imported_by
from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.items.filling import fill
from vr_pipeline.items.folder import open_folder
from vr_pipeline.items.formats import item_format
from vr_pipeline.items.stored import StoredItem
from vr_pipeline.runners import ray_pool
from vr_pipeline.runners.config import Execution
from vr_pipeline.runners.ray_backend import check_resources, needs_of
from vr_pipeline.runners.ray_pool import pool_loop
from vr_pipeline.work import WorkItem, WorkPlan, use_loop

ray = pytest.importorskip("ray")
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """A Ray of two cores and one machine with the resource that workers ask for."""
    from vr_pipeline.runners.ray_backend import _on_this_machine

    with _on_this_machine():
        ray.init(address="local", num_cpus=2, num_gpus=0, resources={"near_the_disk": 1}, include_dashboard=False)
        yield
        ray.shutdown()


def plan_of(number: int, make: Any, **options: Any) -> WorkPlan:
    return WorkPlan([WorkItem(f"item{at:03}", "1") for at in range(number)], make, description="things", **options)


def processes(context: None, batch: Sequence[WorkItem]) -> list[dict[str, Any]]:
    return [{"key": item.key, "process": os.getpid()} for item in batch]


def test_a_worker_loads_neither_kedro_nor_a_library_of_models() -> None:
    code = "from vr_pipeline.runners.ray_worker import PoolWorker"
    assert imported_by(code, "kedro", "mlflow", "torch", "pandas", "pydantic") == []


def test_small_batches_are_made_once_each_and_go_together() -> None:
    plan = plan_of(300, processes)
    calls: list[int] = []
    found: dict[str, Any] = {}
    for batch, [content] in pool_loop(Execution(workers=2))(plan, plan.batches()):
        assert content["key"] == batch[0].key
        assert content["key"] not in found
        found[content["key"]] = content
        calls.append(content["process"])
    assert sorted(found) == [item.key for item in plan.items]
    # Many answers in a row come from one worker: they were sent together.
    changes = sum(one != other for one, other in pairwise(calls))
    assert len(set(calls)) <= 2
    assert changes < 100


def test_custom_resources_place_workers() -> None:
    placed = Execution(workers=1, resources={"near_the_disk": 1})
    check_resources(needs_of(placed), "execution")
    plan = plan_of(1, lambda context, batch: [ray.get_runtime_context().get_assigned_resources() for _ in batch])
    [(_, [assigned])] = pool_loop(placed)(plan, plan.batches())
    assert assigned["near_the_disk"] == 1
    with pytest.raises(InputError, match="2 near_the_disk are configured, but the cluster has 1"):
        check_resources(needs_of(Execution(workers=2, resources={"near_the_disk": 1})), "execution")


def frames_of(context: None, batch: Sequence[WorkItem]) -> list[np.ndarray]:
    return [np.full((20, 64, 64, 3), int(item.key[-3:]), np.uint8) for item in batch]


def test_workers_write_clips_themselves(tmp_path: Path) -> None:
    """Files equal those of one process, and next to nothing of them comes back through Ray."""
    stored_as, plan = item_format({"type": "video", "fps": 8}), plan_of(4, frames_of)
    fill(tmp_path / "one process", stored_as, plan)
    returned: list[Any] = []

    def watched(plan: WorkPlan, batches: Any) -> Iterator[Any]:
        for batch, contents in pool_loop(Execution(workers=2))(plan, batches):
            returned.extend(contents)
            yield batch, contents

    with use_loop(watched):
        fill(tmp_path / "pool", stored_as, plan)
    assert [type(one) for one in returned] == [StoredItem] * 4
    assert max(len(pickle.dumps(one)) for one in returned) < 2_000
    files = [sorted((tmp_path / name).iterdir()) for name in ("one process", "pool")]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    assert all(one.read_bytes() == other.read_bytes() for one, other in zip(*files, strict=True))
    assert len(open_folder(tmp_path / "pool", stored_as).keys) == 4


def test_the_next_batch_is_read_while_one_is_made() -> None:
    """Each worker learns which batch comes next, so that it can read ahead."""

    def make(context: list[str], batch: Sequence[WorkItem]) -> list[list[str]]:
        return [list(context) for _ in batch]

    def ahead(context: list[str], batch: Sequence[WorkItem]) -> None:
        context.append(batch[0].key)

    plan = plan_of(60, make, setup=list, ahead=ahead)
    heard = {batch[0].key: content for batch, [content] in pool_loop(Execution(workers=1))(plan, plan.batches())}
    last = max(heard.values(), key=len)
    assert sum(key in last for key in heard) > 40


class Loading:
    """A plan's setup, in which the first few workers die."""

    def __init__(self, marks: Path, times: int) -> None:
        self.marks, self.times = marks, times

    def __call__(self) -> None:
        if len(list(self.marks.iterdir())) < self.times:
            (self.marks / str(os.getpid())).touch()
            os._exit(1)


def test_no_batch_is_blamed_for_workers_that_die_before_it(tmp_path: Path) -> None:
    times = ray_pool._DEATHS_OF_A_BATCH + 1
    plan = plan_of(2, processes, setup=Loading(tmp_path, times))
    made = sorted(batch[0].key for batch, _ in pool_loop(Execution(workers=1))(plan, plan.batches()))
    assert made == [item.key for item in plan.items]
    assert len(list(tmp_path.iterdir())) == times


def test_a_run_stops_where_no_worker_gets_as_far_as_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_pool, "_FAILED_STARTS", 1)
    plan = plan_of(2, processes, setup=Loading(tmp_path, 100))
    with pytest.raises(PipelineError, match=r"to make things die while they load what that needs, 2 times in a row"):
        list(pool_loop(Execution(workers=1))(plan, plan.batches()))
