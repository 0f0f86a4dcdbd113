"""What it costs to make items through a manifest folder and a pool of Ray workers, and what a second worker gains.

Three ways to make the same items, each of which takes a fixed time of one core:

* a bare loop that writes files and keeps no account;
* the manifest folder in process (the default), which hashes, journals and shows progress;
* the manifest folder over one and over two Ray workers.

Overheads are counted by item against the bare loop, from the first item that is ready to the last. Starting Ray and
its workers is reported separately: it happens once per run.

Two processes rarely run the same loop equally fast, by several per cent on a shared machine. So the same is measured
with items that only wait: what comes on top of the wait is the runner's own.

Run: ``python benchmarks/runner.py [--items 25] [--seconds 0.2]``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.runners.config import Execution, RayCluster
from vr_pipeline.work import Batch, WorkItem, WorkLoop, WorkPlan, use_loop


class Busy:
    """Makes an item by keeping one core busy; counts loops and not time, so that two at once do not help each other."""

    def __init__(self, loops: int) -> None:
        self.loops = loops

    def __call__(self, context: None, batch: Sequence[WorkItem]) -> list[dict[str, object]]:
        return [{"key": item.key, "value": spin(self.loops)} for item in batch]


class Waiting:
    """Makes an item by waiting, so that nothing but the runner's own work can take longer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, context: None, batch: Sequence[WorkItem]) -> list[dict[str, object]]:
        time.sleep(self.seconds * len(batch))
        return [{"key": item.key} for item in batch]


def spin(loops: int) -> int:
    """Work that cannot be optimised away."""
    value = 1
    for _ in range(loops):
        value = (value * 1103515245 + 12345) & 0x7FFFFFFF
    return value


def calibrated(seconds: float) -> int:
    """Loops of :func:`spin` that take ``seconds`` on this machine."""
    loops = 200_000
    best = min(timed(lambda: spin(loops)) for _ in range(5))
    return max(1, round(loops * seconds / best))


def timed(action: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


class Clock:
    """A loop that notes when each batch is ready."""

    def __init__(self, loop: WorkLoop) -> None:
        self.loop = loop
        self.ready: list[float] = []

    def __call__(self, plan: WorkPlan, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Sequence[Any]]]:
        for made in self.loop(plan, batches):
            self.ready.append(time.perf_counter())
            yield made

    def seconds_an_item(self) -> float:
        """Wall-clock seconds between one item and the next."""
        return (self.ready[-1] - self.ready[0]) / (len(self.ready) - 1)


def bare(plan: WorkPlan, folder: Path) -> None:
    """The least that could be done: make and write."""
    folder.mkdir()
    for item in plan.items:
        [content] = plan.make_batch(None, [item])
        (folder / f"{item.key}.json").write_text(json.dumps(content))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.2)
    arguments = parser.parse_args()

    import ray

    from vr_pipeline.runners.ray_backend import connected, pool_loop

    items = [WorkItem(f"item{number:04}", "1") for number in range(arguments.items)]
    plan = WorkPlan(items, Busy(calibrated(arguments.seconds)), description="items")
    waits = WorkPlan(items, Waiting(arguments.seconds), description="waits")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)

        def save(name: str, plan: WorkPlan = plan) -> None:
            ManifestFolderDataset(path=str(root / name), format={"type": "json"}).save(plan)

        # In turns, so that a busy neighbour slows both alike.
        rounds = [
            (timed(partial(bare, plan, root / f"bare{number}")), timed(partial(save, f"loop{number}")))
            for number in range(2)
        ]
        bare_item, loop_item = (min(values) / arguments.items for values in zip(*rounds, strict=True))
        second_run = timed(partial(save, "loop0"))
        bare_wait = timed(partial(bare, waits, root / "bare waits")) / arguments.items
        loop_wait = timed(partial(save, "loop waits", waits)) / arguments.items

        start = time.perf_counter()
        with connected(RayCluster(num_cpus=2, num_gpus=0)):
            ray.get(ray.remote(spin).remote(1))
            ray_start = time.perf_counter() - start
            pool_item = {}
            for workers in (1, 2):
                clock = Clock(pool_loop(Execution(workers=workers)))
                with use_loop(clock):
                    save(f"pool{workers}")
                pool_item[workers] = clock.seconds_an_item()
            clock = Clock(pool_loop(Execution(workers=1)))
            with use_loop(clock):
                save("pool waits", waits)
            pool_wait = clock.seconds_an_item()

    print(f"seconds an item: bare loop {bare_item:.3f}, manifest folder {loop_item:.3f}, ", end="")
    print(f"one Ray worker {pool_item[1]:.3f}, two {pool_item[2]:.3f}; Ray started in {ray_start:.1f} s")
    print(
        f"items that wait: bare loop {bare_wait:.4f}, manifest folder {loop_wait:.4f}, one Ray worker {pool_wait:.4f}"
    )
    figures = {
        "items": arguments.items,
        "seconds_an_item": bare_item,
        "overhead_in_process": loop_item / bare_item - 1,
        "overhead_one_worker": pool_item[1] / bare_item - 1,
        "overhead_in_process_waiting": loop_wait / bare_wait - 1,
        "overhead_one_worker_waiting": pool_wait / bare_wait - 1,
        "speed_up_two_workers": pool_item[1] / pool_item[2],
        "ratio": bare_item / pool_item[2],
        "ray_start_seconds": ray_start,
        "second_run_seconds": second_run,
    }
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
