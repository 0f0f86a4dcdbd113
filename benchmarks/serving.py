"""Rewards over HTTP against the same reward in this process, and a thousand bad requests among good ones.

    python benchmarks/serving.py                    # a mid-size Qwen2-VL with random weights, on the CPU
    python benchmarks/serving.py --device cuda      # Qwen2-VL-2B's size, bfloat16, on a GPU

Both ways decode the same files from disk and score them in batches of the same size by the same object: in this process
one batch after the other, decoded by as many threads, while the next one is decoded; over HTTP by clients in a process
of its own, which send every file in base64. They take turns. The time is the wall's, since the server must keep the
model busy; `ratio` is the throughput over HTTP by that in process, the median of the turns (bar: 0.9). `cpu_ratio`
compares CPU seconds of this process, which is what matters where other work shares the cores.

Then bad requests of many kinds come between good ones, from many clients at once: every good one has to be answered as
in process, every bad one by its status and one JSON error, and the memory of the process must not grow with them.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from checklist import SIZES, make_judge, make_questions

CLIENTS = 16
BAR = 0.9


def make_reward(size: str, device: str, count: int, batch: int, folder: Path) -> Any:
    """A checklist reward whose judge has random weights, loaded from a folder as any."""
    from vr_pipeline.checklist import checklist_from_mapping
    from vr_pipeline.rewards.checklist.model import ChecklistReward
    from vr_pipeline.rewards.checklist.weights import equal_weights

    questions = make_questions(count)
    listed = [{"id": f"q{number}", "text": text} for number, text in enumerate(questions)]
    dimension = {"name": "all", "sub_dimensions": [{"name": "all", "questions": listed}]}
    checklist = checklist_from_mapping({"name": "benchmark", "modality": "video", "dimensions": [dimension]})
    judge = make_judge(size, device, questions, batch)
    folder.mkdir()
    judge.family.save(folder)
    changes = {"path": str(folder), "device": device, "dtype": SIZES[size]["dtype"]}
    return ChecklistReward(checklist, equal_weights(checklist), judge.parameters.model_copy(update=changes))


def send(address: str, body: bytes) -> tuple[int, Any]:
    """Status and JSON of one request."""
    request = urllib.request.Request(f"{address}/score", body, {"content-type": "application/json"})
    while True:
        try:
            with urllib.request.urlopen(request, timeout=3600) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 429:
                return error.code, json.load(error)
            time.sleep(0.05)


def clients(address: str, wishes: Any, answers: Any) -> None:
    """Send lists of bodies as they come, many at once, until there is None; in a process of its own."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        while (bodies := wishes.get()) is not None:
            answers.put(list(pool.map(lambda body: send(address, body), bodies)))


def in_process(reward: Any, files: Sequence[Path], prompt: str, batch: int, readers: int) -> list[float]:
    """Totals of files, scored in batches, while the next ones are decoded."""
    from vr_pipeline.rewards.checklist.scoring import score_clips
    from vr_pipeline.video.sampled import sample_clip

    sampling = reward.sampling(reward.loaded())
    with ThreadPoolExecutor(readers) as pool:
        read = [pool.submit(sample_clip, path, prompt, sampling) for path in files]
        totals: list[float] = []
        for start in range(0, len(files), batch):
            clips = [one.result() for one in read[start : start + batch]]
            totals += [one.total for one in score_clips(reward, clips)]  # type: ignore[union-attr]
    return totals


def bad_bodies(good: bytes, limit: int, count: int) -> list[bytes]:
    """Requests that cannot be answered, of many kinds."""
    draw = random.Random(0)
    content = json.loads(good)["clip"]
    cut = content[: len(content) // 8 * 4]
    kinds = [
        lambda: b"",
        lambda: good[: draw.randrange(1, len(good))],
        lambda: bytes(draw.randrange(256) for _ in range(200)),
        lambda: b"[" * 100_000,
        lambda: b"x" * (limit + draw.randrange(1, limit)),
        lambda: json.dumps({"clip": cut, "prompt": "a"}).encode(),
        lambda: json.dumps({"clip": base64.b64encode(draw.randbytes(5000)).decode(), "prompt": "a"}).encode(),
        lambda: json.dumps({"clip": "?" * 50, "prompt": "a"}).encode(),
        lambda: json.dumps({"clip": content}).encode(),
        lambda: json.dumps({"clip": content, "path": "a", "prompt": "a"}).encode(),
        lambda: json.dumps({"path": "../" * 8 + "etc/passwd", "prompt": "a"}).encode(),
        lambda: json.dumps({"clip": content, "prompt": "a" * 30_000}).encode(),
        lambda: json.dumps({"clip": content, "prompt": ["a"], "top": -1}).encode(),
    ]
    return [kinds[number % len(kinds)]() for number in range(count)]


def clips_per_batch(address: str) -> float:
    """How many clips the server scored together, on average so far."""
    with urllib.request.urlopen(f"{address}/metrics") as answer:
        counts = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    return float(counts["vr_scored_total"]) / float(counts["vr_batches_total"])


def resident() -> float:
    """Memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures."""
    import uvicorn

    from vr_pipeline.runtime.web import address_of, listen
    from vr_pipeline.serving.app import create_app
    from vr_pipeline.serving.limits import ServingLimits
    from vr_pipeline.serving.service import RewardService
    from vr_pipeline.video.write import write_video

    shape, prompt = SIZES[arguments.size], "a cat"
    drawn = np.random.default_rng(0)
    files = []
    for number in range(arguments.clips):
        # Smooth, as clips are; noise would make files that are all size.
        small = drawn.integers(0, 256, (shape["frames"], 8, 8, 3), dtype=np.uint8)
        height, width = shape["pixels"]
        frames = small.repeat(-(-height // 8), axis=1).repeat(-(-width // 8), axis=2)[:, :height, :width]
        files.append(folder / f"{number}.mp4")
        write_video(files[-1], np.ascontiguousarray(frames), fps=8)
    reward = make_reward(arguments.size, arguments.device, arguments.questions, arguments.batch, folder / "judge")
    limits = ServingLimits(batch=arguments.batch, max_mebibytes=4, timeout=3600)
    listener = listen("127.0.0.1", 0)
    address = address_of("127.0.0.1", listener.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(create_app(RewardService(reward), limits), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    context = multiprocessing.get_context("spawn")
    wishes, answers = context.Queue(), context.Queue()
    process = context.Process(target=clients, args=(address, wishes, answers))
    process.start()
    bodies = [
        json.dumps({"clip": base64.b64encode(path.read_bytes()).decode(), "prompt": prompt}).encode() for path in files
    ]

    def over_http(some: list[bytes]) -> list[tuple[int, Any]]:
        wishes.put(some)
        found: list[tuple[int, Any]] = answers.get()
        return found

    try:
        figures = throughput(reward, files, prompt, bodies, over_http, arguments, limits.readers)
        figures["clips_per_batch"] = clips_per_batch(address)
        figures |= bad_among_good(figures.pop("totals"), bodies, over_http, arguments, limits.max_bytes)
    finally:
        wishes.put(None)
        process.join()
        server.should_exit = True
        thread.join()
    return figures


def throughput(
    reward: Any,
    files: Sequence[Path],
    prompt: str,
    bodies: list[bytes],
    over_http: Any,
    arguments: argparse.Namespace,
    readers: int,
) -> dict[str, Any]:
    """Seconds of both ways, in turns."""
    times: dict[str, list[tuple[float, float]]] = {"in_process": [], "http": []}
    totals: list[float] = []
    worst = 0.0
    for repeat in range(arguments.repeats + 1):
        start = time.perf_counter(), time.process_time()
        totals = in_process(reward, files, prompt, arguments.batch, readers)
        middle = time.perf_counter(), time.process_time()
        served = over_http(bodies)
        end = time.perf_counter(), time.process_time()
        worst = max(worst, *(abs(one["total"] - total) for (_, one), total in zip(served, totals, strict=True)))
        if repeat:  # The first warms up.
            times["in_process"].append((middle[0] - start[0], middle[1] - start[1]))
            times["http"].append((end[0] - middle[0], end[1] - middle[1]))
    # The least disturbed turn of each, for the figures of one way: what else the machine does makes it only slower.
    best = {name: [min(values) for values in zip(*pairs, strict=True)] for name, pairs in times.items()}
    turns = [one[0] / other[0] for one, other in zip(times["in_process"], times["http"], strict=True)]
    return {
        "totals": totals,
        "ratio": statistics.median(turns),
        "ratio_of_turns": [round(turn, 3) for turn in turns],
        "cpu_ratio": best["in_process"][1] / best["http"][1],
        "clips_per_second": len(files) / best["http"][0],
        "clips_per_second_in_process": len(files) / best["in_process"][0],
        "largest_difference": worst,
    }


def bad_among_good(
    totals: list[float], bodies: list[bytes], over_http: Any, arguments: argparse.Namespace, limit: int
) -> dict[str, Any]:
    """What becomes of good requests among many bad ones; memory after each fifth of them."""
    bad = bad_bodies(bodies[0], limit, arguments.bad)
    asked: list[tuple[int | None, bytes]] = [(None, body) for body in bad]
    every = max(1, arguments.bad // arguments.good)
    asked += [(number % len(bodies), bodies[number % len(bodies)]) for number in range(len(bad) // every)]
    random.Random(1).shuffle(asked)
    statuses: Counter[int] = Counter()
    memory, wrong, good = [resident()], 0, 0
    fifth = -(-len(asked) // 5)
    for start in range(0, len(asked), fifth):
        part = asked[start : start + fifth]
        for (number, _), (status, answer) in zip(part, over_http([body for _, body in part]), strict=True):
            if number is None:
                statuses[status] += 1
                wrong += status not in (400, 413, 422) or list(answer) != ["detail"]
            else:
                good += 1
                wrong += status != 200 or abs(answer["total"] - totals[number]) > 1e-4
        memory.append(resident())
    return {
        "bad_requests": len(bad),
        "bad_by_status": {str(status): count for status, count in sorted(statuses.items())},
        "good_requests": good,
        "wrong_answers": wrong,
        "resident_mb": [round(value) for value in memory],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", choices=SIZES)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--questions", type=int, default=29)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bad", type=int, default=1000)
    parser.add_argument("--good", type=int, default=100)
    arguments = parser.parse_args()
    arguments.size = arguments.size or ("2b" if arguments.device == "cuda" else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    print(json.dumps({**figures, "size": arguments.size, "batch": arguments.batch, "clips": arguments.clips}))
    if figures["ratio"] < BAR or figures["wrong_answers"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
