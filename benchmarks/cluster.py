"""How well many small items keep Ray workers busy, also when a worker is killed every few seconds.

Each item only waits, so that workers share no processor and the rest is the runner's own work: the ideal time is the
sum of the waits over the number of workers. Workers are started before, by a plan with one item for each, and their
start is printed apart: it happens once per node. A worker that replaces a killed one starts within the measured time.

    python benchmarks/cluster.py                        # 10,000 items of 50 ms on 2, 4 and 8 workers: half an hour
    python benchmarks/cluster.py --items 1000 --kill-every 0

With ``--kill-every`` the same is made again while one worker after the other is killed (SIGKILL); every item must then
be there with the same content. What a kill costs is the time of a worker that is lost by it: its start, and what it was
making. Each row has the load of the machine, on which the figures depend. Some clips are made too: what comes back
through Ray is compared with their size.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vr_pipeline.items.filling import fill
from vr_pipeline.items.formats import item_format
from vr_pipeline.items.manifest import MANIFEST, read_manifest
from vr_pipeline.runners.config import Execution, RayCluster
from vr_pipeline.work import Batch, WorkItem, WorkLoop, WorkPlan, use_loop


class Waiting:
    """Makes items that take a fixed time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, context: None, batch: Sequence[WorkItem]) -> list[dict[str, Any]]:
        time.sleep(self.seconds * len(batch))
        return [{"key": item.key} for item in batch]


class Clips:
    """Makes clips of 49 frames of 480 x 720 pixels that compress well."""

    def __call__(self, context: None, batch: Sequence[WorkItem]) -> list[np.ndarray]:
        return [np.full((49, 480, 720, 3), int(item.key[-4:]) % 256, np.uint8) for item in batch]


class Scales:
    """A loop that notes how many bytes contents have on their way here."""

    def __init__(self, loop: WorkLoop) -> None:
        self.loop, self.bytes = loop, 0

    def __call__(self, plan: WorkPlan, batches: Sequence[Batch]) -> Iterator[tuple[Batch, Sequence[Any]]]:
        for batch, contents in self.loop(plan, batches):
            self.bytes += len(pickle.dumps(contents))
            yield batch, contents


class Killer:
    """Kills one of this process's Ray workers every few seconds while the block runs."""

    def __init__(self, every: float) -> None:
        self.every, self.killed = every, 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Killer:
        if self.every > 0:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        if self.every > 0:
            self._thread.join()

    def _run(self) -> None:
        import psutil  # type: ignore[import-untyped]

        choice = random.Random(0)
        while not self._end.wait(self.every):
            workers = [one.pid for one in psutil.Process().children(recursive=True) if is_worker(one)]
            if workers:
                os.kill(choice.choice(workers), signal.SIGKILL)
                self.killed += 1


def is_worker(process: Any) -> bool:
    """Return whether a process is one of the pool's."""
    import psutil

    try:
        return any("PoolWorker" in part for part in process.cmdline()[:1])
    except psutil.Error:
        return False


def made(folder: Path) -> dict[str, str]:
    """Return the hash of each item's content."""
    return {record.key: record.sha256 for record in read_manifest(folder / MANIFEST).items if record.status == "ok"}


def measure(folder: Path, workers: int, arguments: argparse.Namespace, kill_every: float) -> dict[str, Any]:
    """Make all items once, and return the figures."""
    from vr_pipeline.runners.ray_pool import pool_loop

    items = [WorkItem(f"item{number:06}", "1") for number in range(arguments.items)]
    stored_as = item_format({"type": "json"})
    plan = WorkPlan(items, Waiting(arguments.seconds), description="items")
    loop = pool_loop(Execution(workers=workers, num_cpus=1, fresh_workers=False))
    start = time.perf_counter()
    with use_loop(loop):
        fill(folder.with_name(f"{folder.name} start"), stored_as, replace(plan, items=items[:workers]))
    begin, processor = time.perf_counter(), time.process_time()
    with use_loop(loop), Killer(kill_every) as killer:
        fill(folder, stored_as, plan)
    passed, processor = time.perf_counter() - begin, time.process_time() - processor
    ideal = arguments.items * arguments.seconds / workers
    return {
        "workers": workers,
        "kill_every": kill_every,
        "killed": killer.killed,
        "items": len(made(folder)),
        "content": made(folder),
        "efficiency": ideal / passed,
        "seconds": passed,
        "start": begin - start,
        "load": os.getloadavg()[0],
        "processor_ms_per_item": 1000 * processor / arguments.items,
    }


def object_store(folder: Path, number: int) -> dict[str, float]:
    """Return MB of clips, and MB that came back through Ray for them."""
    from vr_pipeline.runners.ray_pool import pool_loop

    plan = WorkPlan([WorkItem(f"clip{at:04}", "1") for at in range(number)], Clips(), description="clips")
    scales = Scales(pool_loop(Execution(workers=2)))
    with use_loop(scales):
        fill(folder, item_format({"type": "video", "preset": "ultrafast"}), plan)
    return {"clip_mb": number * 49 * 480 * 720 * 3 / 1e6, "returned_mb": scales.bytes / 1e6}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=0.05, help="that an item takes")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--kill-every", type=float, default=10.0, help="seconds; 0 for no second round with kills")
    parser.add_argument("--clips", type=int, default=8)
    arguments = parser.parse_args()

    from vr_pipeline.runners.ray_backend import connected

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary, connected(RayCluster(num_cpus=max(arguments.workers), num_gpus=0)):
        expected = None
        for workers in arguments.workers:
            for kill_every in (0.0, arguments.kill_every)[: 2 if arguments.kill_every > 0 else 1]:
                figures = measure(Path(temporary) / f"{workers} {kill_every}", workers, arguments, kill_every)
                content = figures.pop("content")
                expected = expected or content
                figures["same"] = content == expected
                lost = ""
                if figures["killed"]:
                    longer = figures["seconds"] - rows[-1]["seconds"]
                    figures["worker_seconds_per_kill"] = longer * workers / figures["killed"]
                    lost = f"{figures['worker_seconds_per_kill']:.1f} s of a worker lost per kill, "
                rows.append(figures)
                print(
                    f"{workers} workers, {figures['killed']:3} killed: {figures['items']:,} items, the same content: "
                    f"{figures['same']}, {figures['seconds']:.1f} s, efficiency {figures['efficiency']:.3f}, "
                    f"{lost}{figures['processor_ms_per_item']:.2f} ms of this process's CPU per item, "
                    f"started in {figures['start']:.1f} s, load {figures['load']:.1f}",
                    flush=True,
                )
        store = object_store(Path(temporary) / "clips", arguments.clips)
    print(f"{arguments.clips} clips of {store['clip_mb']:.0f} MB: {store['returned_mb']:.3f} MB came back through Ray")
    print(json.dumps({"seconds": arguments.seconds, "rows": rows, **store}))


if __name__ == "__main__":
    main()
