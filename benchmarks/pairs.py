"""Choice of pairs: 1,000,000 videos in groups of 4 with 9 dimensions; time, memory and growth.

Compared with a loop over the prompts in plain Python on a part of them (both times per video).
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import combinations

import numpy as np
import pandas as pd

from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.runtime.memory import peak_memory


def simulate(videos: int, group: int, dimensions: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(videos, dimensions)) + rng.normal(size=(videos, 1))
    table = pd.DataFrame(values, columns=[f"dim_{k}" for k in range(dimensions)])
    table.insert(0, "total", values.sum(axis=1))
    table.insert(0, "prompt_id", [f"prompt-{i // group:08d}" for i in range(videos)])
    table.insert(0, "video_id", [f"video-{i:08d}" for i in rng.permutation(videos)])
    return table


def loop(rewards: pd.DataFrame) -> set[tuple[str, str]]:
    """The best dominating pair of every prompt, prompt by prompt."""
    names = [name for name in rewards.columns if name.startswith("dim_")]
    chosen = set()
    for _, group in rewards.groupby("prompt_id"):
        ids, total, values = list(group["video_id"]), group["total"].to_numpy(), group[names].to_numpy()
        best: tuple[float, str, str] | None = None
        for i, j in combinations(range(len(ids)), 2):
            winner, loser = (i, j) if total[i] > total[j] else (j, i)
            if (values[winner] - values[loser] >= -1e-9).all() and total[winner] - total[loser] > 1e-9:
                candidate = (-float(total[winner] - total[loser]), ids[winner], ids[loser])
                best = candidate if best is None else min(best, candidate)
        if best is not None:
            chosen.add(best[1:])
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--dimensions", type=int, default=9)
    parser.add_argument("--loop-videos", type=int, default=20_000)
    arguments = parser.parse_args()
    table = simulate(arguments.videos, arguments.group, arguments.dimensions)
    before = peak_memory() / 2**20
    select_pairs(table.iloc[:400], "mpo")
    growth: dict[int, float] = {}
    for share in (8, 4, 2, 1):
        part = table.iloc[: arguments.videos // share]
        start = time.perf_counter()
        pairs = select_pairs(part, "mpo")
        growth[len(part)] = round(time.perf_counter() - start, 3)
        print(f"mpo, {len(part)} videos: {growth[len(part)]:.2f} s, {len(pairs)} pairs")
    others: tuple[tuple[str, str, int | None], ...] = (
        ("dpo, one a prompt", "dpo", 1),
        ("dpo, all pairs", "dpo", None),
    )
    seconds_of = {}
    for text, strategy, cap in others:
        start = time.perf_counter()
        pairs = select_pairs(table, strategy, max_pairs_per_prompt=cap)
        seconds_of[text] = round(time.perf_counter() - start, 3)
        print(f"{text}: {seconds_of[text]:.2f} s, {len(pairs)} pairs")
    peak = peak_memory() / 2**20
    print(f"resident memory: {before:.0f} MB with the table, {peak:.0f} MB at the peak")
    part = table.iloc[: arguments.loop_videos]
    start = time.perf_counter()
    expected = loop(part)
    loop_seconds = time.perf_counter() - start
    fast = select_pairs(part, "mpo")
    same = set(zip(fast["winner_video_id"], fast["loser_video_id"], strict=True)) == expected
    ratio = (loop_seconds / len(part)) / (growth[arguments.videos] / arguments.videos)
    print(f"loop over prompts, {len(part)} videos: {loop_seconds:.2f} s, same pairs: {same}")
    print(
        json.dumps(
            {
                "benchmark": "pairs",
                "videos": arguments.videos,
                "group": arguments.group,
                "dimensions": arguments.dimensions,
                "seconds": growth[arguments.videos],
                "seconds_by_videos": growth,
                "seconds_dpo": seconds_of["dpo, one a prompt"],
                "seconds_dpo_all": seconds_of["dpo, all pairs"],
                "peak_mb": round(peak),
                "ratio": round(ratio, 1),
                "same_as_loop": same,
            }
        )
    )


if __name__ == "__main__":
    main()
