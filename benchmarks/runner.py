"""What it costs to make items through a manifest folder and a pool of Ray workers, and what a second worker gains.

Three ways to make the same items, each of which takes a fixed time of one core:

* a bare loop that writes files and keeps no account;
* the manifest folder in process (the default), which hashes, journals and shows progress;
* the manifest folder over one and over two Ray workers.

Overheads are processor time, of all threads of this process and of all processes that Ray started, so that neither a
neighbour nor a second core can hide work that the runner adds. The same computation varies by several per cent between
processes and moments, more than the runner adds. So each item counts its own computation where it runs, and the rest is
the runner's: what it takes beside the items, above what the bare loop takes beside them, per second of computation. The
bare loop and the manifest folder take turns, in both orders; the median is reported with its range. A worker is
measured from its first item that is ready to its last; Ray's start is reported separately: it happens once per run.

The same is measured with items that only wait: what comes on top of the wait, by the clock, is the runner's own.

Run: ``python benchmarks/runner.py [--items 25] [--seconds 0.2] [--rounds 4] [--in-process]``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.runners.config import Execution, RayCluster
from vr_pipeline.work import Batch, WorkItem, WorkLoop, WorkPlan, use_loop


class Busy:
    """Makes an item by keeping one core busy; counts loops and not time, so that two at once do not help each other."""

    def __init__(self, loops: int) -> None:
        self.loops = loops
        self.computing = 0.0

    def __call__(self, context: None, batch: Sequence[WorkItem]) -> list[dict[str, object]]:
        made = []
        for item in batch:
            start = time.process_time()
            value = spin(self.loops)
            seconds = time.process_time() - start
            self.computing += seconds
            made.append({"key": item.key, "value": value, "cpu": seconds})
        return made


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
    """Loops of :func:`spin` that take ``seconds`` of processor time on this machine."""
    loops = 200_000
    best = min(used(lambda: spin(loops)) for _ in range(5))
    return max(1, round(loops * seconds / best))


def timed(action: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def used(action: Callable[[], object]) -> float:
    """Processor seconds of a call, over all threads of this process."""
    start = time.process_time()
    action()
    return time.process_time() - start


def used_by_all() -> float:
    """Processor seconds so far of this process and of all that it started and that still run."""
    total = time.process_time()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class Clock:
    """A loop that notes when each batch is ready, and the processor time of all processes until then."""

    def __init__(self, loop: WorkLoop) -> None:
        self.loop = loop
        self.ready: list[float] = []
        self.used: list[float] = []
        self.computing: list[float] = []

    def __call__(self, plan: WorkPlan, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Sequence[Any]]]:
        for made in self.loop(plan, batches):
            self.ready.append(time.perf_counter())
            self.used.append(used_by_all())
            self.computing += [content["cpu"] for content in made[1] if "cpu" in content]
            yield made

    def seconds_an_item(self) -> float:
        """Wall-clock seconds between one item and the next."""
        return (self.ready[-1] - self.ready[0]) / (len(self.ready) - 1)

    def cpu_an_item(self) -> float:
        """Processor seconds of all processes between one item and the next."""
        return (self.used[-1] - self.used[0]) / (len(self.used) - 1)


def bare(plan: WorkPlan, folder: Path) -> None:
    """The least that could be done: make and write."""
    folder.mkdir()
    for item in plan.items:
        [content] = plan.make_batch(None, [item])
        (folder / f"{item.key}.json").write_text(json.dumps(content))


class Folders:
    """The same items, made by a bare loop and by manifest folders below one folder.

    Args:
        root: where files go.
        items: number of items.
        seconds: processor time of an item, or its wait.
    """

    def __init__(self, root: Path, items: int, seconds: float) -> None:
        made = [WorkItem(f"item{number:04}", "1") for number in range(items)]
        self.root, self.items = root, items
        self.busy = Busy(calibrated(seconds))
        self.plan = WorkPlan(made, self.busy, description="items")
        self.waits = WorkPlan(made, Waiting(seconds), description="waits")

    def bare(self, name: str) -> None:
        """Make the items with the bare loop."""
        bare(self.plan, self.root / name)

    def beside_items(self, make: Callable[[str], None], name: str) -> float:
        """Return the processor time that a way of making the items takes beside them, per second of computation."""
        before = self.busy.computing
        whole = used(partial(make, name))
        computing = self.busy.computing - before
        return (whole - computing) / computing

    def save(self, name: str, plan: WorkPlan | None = None) -> None:
        """Make the items, or those of another plan, in a manifest folder."""
        ManifestFolderDataset(path=str(self.root / name), format={"type": "json"}).save(plan or self.plan)


def in_process(folders: Folders, rounds: int) -> dict[str, float]:
    """Return figures of the manifest folder in this process."""
    ways: dict[str, Callable[[str], None]] = {"bare": folders.bare, "loop": folders.save}
    found: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for way in list(ways)[:: 1 if number % 2 else -1]:
            found[way].append(folders.beside_items(ways[way], f"{way}{number}"))
    overheads = [loop - plain for loop, plain in zip(found["loop"], found["bare"], strict=True)]
    second_run = timed(partial(folders.save, "loop0"))
    bare_wait = timed(partial(bare, folders.waits, folders.root / "bare waits"))
    loop_wait = timed(partial(folders.save, "loop waits", folders.waits))
    return {
        "cpu_seconds_an_item": folders.busy.computing / (2 * rounds * folders.items),
        "overhead_in_process": statistics.median(overheads),
        "overhead_in_process_least": min(overheads),
        "overhead_in_process_most": max(overheads),
        "overhead_in_process_waiting": loop_wait / bare_wait - 1,
        "second_run_seconds": second_run,
        "seconds_an_item_that_waits": bare_wait / folders.items,
    }


def on_ray(folders: Folders, bare_wait: float) -> dict[str, float]:
    """Return figures of one and of two Ray workers."""
    import ray

    from vr_pipeline.runners.ray_backend import connected
    from vr_pipeline.runners.ray_pool import pool_loop

    def filled(name: str, workers: int, plan: WorkPlan | None = None) -> Clock:
        clock = Clock(pool_loop(Execution(workers=workers)))
        with use_loop(clock):
            folders.save(name, plan)
        return clock

    start = time.perf_counter()
    with connected(RayCluster(num_cpus=2, num_gpus=0)):
        ray.get(ray.remote(spin).remote(1))
        ray_start = time.perf_counter() - start
        one = filled("pool1", 1)
        two, waiting = filled("pool2", 2), filled("pool waits", 1, folders.waits)
    return {
        "overhead_one_worker": one.cpu_an_item() / statistics.mean(one.computing[1:]) - 1,
        "overhead_one_worker_waiting": waiting.seconds_an_item() / bare_wait - 1,
        "speed_up_two_workers": one.seconds_an_item() / two.seconds_an_item(),
        "ray_start_seconds": ray_start,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--in-process", action="store_true", help="leave out Ray, whose start needs an idle machine")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folders = Folders(Path(temporary), arguments.items, arguments.seconds)
        figures = in_process(folders, arguments.rounds)
        if not arguments.in_process:
            figures |= on_ray(folders, figures["seconds_an_item_that_waits"])
    print(json.dumps({"items": arguments.items} | {name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
