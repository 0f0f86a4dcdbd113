"""Pairwise accuracy with tie calibration: 1,000,000 pairs, and the brute force over all thresholds on fewer.

With VR_REAL_DATA set, also the figures of CLIPScore on the TIFA annotations.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from vr_pipeline.preferences.formats import read_preferences
from vr_pipeline.statistics.agreement import pairwise_accuracy


def brute_force(difference: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Accuracy at every threshold, each counted over all pairs."""
    sign = np.where(difference > 0, "a", np.where(difference < 0, "b", "tie"))
    best, threshold = -1, 0.0
    for epsilon in np.unique(np.r_[0.0, np.abs(difference)]):
        right = int((np.where(np.abs(difference) <= epsilon, "tie", sign) == label).sum())
        if right > best:
            best, threshold = right, float(epsilon)
    return best / len(label), threshold


def simulate(pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    difference = np.round(rng.normal(size=pairs), 5)  # equal sizes occur
    noisy = difference + rng.logistic(size=pairs)
    return difference, np.where(np.abs(noisy) < 1.5, "tie", np.where(noisy > 0, "a", "b"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--brute-force-pairs", type=int, default=5_000)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"benchmark": "agreement", "pairs": arguments.pairs}
    difference, label = simulate(arguments.pairs)
    growth = {}
    for share in (8, 4, 2, 1):
        n = arguments.pairs // share
        start = time.perf_counter()
        result = pairwise_accuracy(difference[:n], label[:n])
        growth[n] = round(time.perf_counter() - start, 4)
        print(f"{n} pairs: {growth[n]:.3f} s, tau {result.tau:.4f}, diff {result.diff:.4f}, epsilon {result.epsilon}")
    n = arguments.brute_force_pairs
    start = time.perf_counter()
    slow = brute_force(difference[:n], label[:n])
    slow_seconds = time.perf_counter() - start
    start = time.perf_counter()
    fast = pairwise_accuracy(difference[:n], label[:n])
    fast_seconds = time.perf_counter() - start
    same = (fast.tau, fast.epsilon) == slow
    print(f"brute force on {n} pairs: {slow_seconds:.2f} s against {fast_seconds:.4f} s, same result: {same}")
    figures |= {
        "seconds": growth[arguments.pairs],
        "seconds_by_pairs": growth,
        "ratio": round(slow_seconds / fast_seconds, 1),
        "ratio_pairs": n,
        "same_as_brute_force": same,
    }
    folder = os.environ.get("VR_REAL_DATA")
    if folder:
        table = read_preferences(
            Path(folder) / "data/preferences/tifa160_human_annotations_with_scores.json",
            "rated_items",
            columns={"group": "text_id", "prompt": "text", "score": "clipscore_vitb32"},
            criterion="human_avg",
        )
        real = pairwise_accuracy(table["score_a"] - table["score_b"], table["preference"])
        print(f"CLIPScore on TIFA: tau {real.tau}, diff {real.diff:.3f} over {real.n} pairs ({real.n_ties} ties)")
        figures |= {"tifa_tau": real.tau, "tifa_diff": round(real.diff, 5)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
