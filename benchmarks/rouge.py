"""The exact Rouge-L filter against the plain scan with the rouge-score package, and how its cost grows.

    python benchmarks/rouge.py

With VR_REAL_DATA set, the prompts are data/prompts/vidprom_50k.txt under it; otherwise synthetic ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from prompt_pipeline import load_prompts
from vr_pipeline.prompts.greedy_scan import available_cores
from vr_pipeline.prompts.rouge import greedy_rouge_filter
from vr_pipeline.runtime.memory import peak_memory

SIZES = (5_000, 10_000, 20_000, 50_000)
PLAIN_SIZE = 1_000
THRESHOLD = 0.7


def plain_scan(prompts: Sequence[str], threshold: float, budget_seconds: float) -> tuple[list[int], int, float]:
    """Scan with rouge-score until done or out of time: indices kept, prompts done, seconds."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    kept: list[int] = []
    begin = time.perf_counter()
    for index, prompt in enumerate(prompts):
        if not any(scorer.score(prompts[other], prompt)["rougeL"].fmeasure > threshold for other in kept):
            kept.append(index)
        if time.perf_counter() - begin > budget_seconds:
            return kept, index + 1, time.perf_counter() - begin
    return kept, len(prompts), time.perf_counter() - begin


def measure_alone(size: int, workers: int) -> dict[str, float]:
    """Seconds (the best of three, which other load disturbs least) and peak memory, each in a process of its own."""
    command = [sys.executable, __file__, "--one", str(size), "--workers", str(workers)]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        for _ in range(3)
    ]
    return min(runs, key=lambda run: run["seconds"])


def one(size: int, workers: int) -> None:
    from vr_pipeline.prompts.rouge import greedy_rouge_scan

    prompts, _ = load_prompts(size)
    before = peak_memory() / 2**20
    begin, cpu_begin = time.perf_counter(), time.process_time()
    scan = greedy_rouge_scan(prompts, THRESHOLD, workers=workers)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin
    peak = peak_memory() / 2**20
    figures = {"seconds": seconds, "cpu_seconds": cpu_seconds, "kept": len(scan.kept), "peak_mb": peak}
    print(json.dumps(figures | {"before_mb": before}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=available_cores(), help="threads for the LCS computations")
    parser.add_argument("--budget", type=float, default=130.0, help="most seconds for the rouge-score scan")
    options = parser.parse_args()
    if options.one:
        one(options.one, options.workers)
        return
    prompts, origin = load_prompts(max(SIZES))
    print(f"prompts: {origin}; threshold {THRESHOLD}; {options.workers} threads on {os.cpu_count()} cores")
    growth = {size: measure_alone(size, options.workers) for size in SIZES}
    for size, figures in growth.items():
        print(
            f"{size:>7,} prompts: {figures['seconds']:6.2f} s ({figures['cpu_seconds']:.2f} s of processor time), "
            f"{figures['kept']:,} kept, "
            f"peak {figures['peak_mb']:.0f} MB"
        )
    single = measure_alone(max(SIZES), 1)
    print(f"{max(SIZES):>7,} prompts on one thread: {single['seconds']:.2f} s")
    # Processor time, which other load on the machine disturbs less than the clock.
    exponent = math.log(growth[50_000]["cpu_seconds"] / growth[20_000]["cpu_seconds"]) / math.log(2.5)
    million = growth[50_000]["cpu_seconds"] * 20**exponent
    bound = growth[50_000]["cpu_seconds"] * 20**2
    million_mb = 20 * (growth[50_000]["peak_mb"] - growth[50_000]["before_mb"])
    print(
        f"cost grows as n^{exponent:.2f} from 20,000 to 50,000; on one core a million would take about "
        f"{million / 60:.1f} minutes and {million_mb:.0f} MB, at most {bound / 60:.1f} minutes if it grew as n^2: "
        "each token's list of prompts grows as n, and every prompt looks through the lists of its rare tokens"
    )
    begin = time.perf_counter()
    for _ in range(5):
        fast = greedy_rouge_filter(prompts[:PLAIN_SIZE], THRESHOLD)
    fast_seconds = (time.perf_counter() - begin) / 5
    kept, done, plain_seconds = plain_scan(prompts[:PLAIN_SIZE], THRESHOLD, options.budget)
    if done < PLAIN_SIZE:
        # Out of time: the scan's cost grows as the square of what is done.
        print(f"rouge-score was stopped after {done} prompts; its time for {PLAIN_SIZE} is extrapolated")
        plain_seconds *= (PLAIN_SIZE / done) ** 2
    same = kept == [index for index in fast if index < done]
    print(
        f"first {PLAIN_SIZE:,}: rouge-score scan {plain_seconds:.1f} s, this {fast_seconds * 1000:.1f} ms, "
        f"same indices: {same}"
    )
    if not same:
        raise SystemExit("the fast filter and the rouge-score scan disagree")
    print(
        json.dumps(
            {
                "benchmark": "rouge",
                "prompts": origin,
                "threshold": THRESHOLD,
                "seconds": round(growth[50_000]["seconds"], 3),
                "peak_mb": round(growth[50_000]["peak_mb"], 1),
                "seconds_by_size": {str(size): round(figures["seconds"], 3) for size, figures in growth.items()},
                "kept_by_size": {str(size): figures["kept"] for size, figures in growth.items()},
                "cpu_seconds": round(growth[50_000]["cpu_seconds"], 3),
                "million_mb_estimate": round(million_mb),
                "seconds_one_thread": round(single["seconds"], 3),
                "growth_exponent": round(exponent, 3),
                "million_minutes_estimate": round(million / 60, 2),
                "million_minutes_bound": round(bound / 60, 2),
                "rouge_score_seconds_1000": round(plain_seconds, 2),
                "rouge_score_prompts_done": done,
                "filter_seconds_1000": round(fast_seconds, 5),
                "ratio": round(plain_seconds / fast_seconds, 1),
                "same_indices": same,
            }
        )
    )


if __name__ == "__main__":
    main()
