"""Folders of many small files: to fill one, to start again with nothing to do, and to verify every file on demand.

    python benchmarks/item_folder.py --items 20000 100000

Each size is filled in a process of its own. The start with nothing to do is compared with reading and hashing every
file in the same process, which a start without recorded sizes and times would have to do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.filling import fill
from vr_pipeline.items.folder import open_folder
from vr_pipeline.items.formats import item_format
from vr_pipeline.runtime.memory import peak_memory
from vr_pipeline.work import WorkItem, WorkPlan

JSON = item_format({"type": "json"})


def plan_of(items: int) -> WorkPlan:
    keys = [content_hash("benchmark item", number) for number in range(items)]
    return WorkPlan(
        [WorkItem(key, identity=key, metadata={"number": number}) for number, key in enumerate(keys)],
        lambda context, batch: [{"key": item.key, "values": list(range(200))} for item in batch],
        batch_size=64,
    )


def measured(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor seconds of a call, and its result."""
    start = time.process_time()
    result = work()
    return round(time.process_time() - start, 2), result


def run(folder: Path, items: int) -> dict[str, Any]:
    """Fill a folder, start again with nothing to do, open and verify it, and start without known hashes."""
    plan = plan_of(items)
    found: dict[str, Any] = {}
    found["fill"], _ = measured(lambda: fill(folder, JSON, plan))
    found["nothing_to_do"], _ = measured(lambda: fill(folder, JSON, plan))
    found["open"], opened = measured(lambda: open_folder(folder, JSON))
    found["verify"], damaged = measured(opened.damaged)
    (folder.parent / f".{folder.name}.verified.lock").unlink()
    found["start_that_hashes"], _ = measured(lambda: fill(folder, JSON, plan))
    sizes = Counter(file.parent for file in folder.rglob("*.json"))
    found |= {"damaged": len(damaged), "folders": len(sizes), "largest_folder": max(sizes.values())}
    return found | {"peak_mb": peak_memory() >> 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[5_000, 20_000], help="sizes, in turn")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        print(json.dumps(run(arguments.child, arguments.items[0])))
        return
    sizes = {}
    for items in arguments.items:
        with tempfile.TemporaryDirectory() as place:
            command = [sys.executable, __file__, "--child", str(Path(place) / "items"), "--items", str(items)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = sizes[items] = json.loads(done.stdout.splitlines()[-1])
        print(f"{items:,} items, processor seconds: {row}", flush=True)
    ratio = round(row["start_that_hashes"] / row["nothing_to_do"], 1)
    print(json.dumps({"benchmark": "item_folder", "sizes": sizes, "ratio_of_hashing": ratio}))


if __name__ == "__main__":
    main()
