"""Fit of the reward weights: 44,000 pairs and 61 questions, removals of negative weights included.

Compared with the obvious way on the same pairs and penalty: both orders of every pair, scikit-learn's default solver,
a cold start after every removal.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from sklearn.linear_model import LogisticRegression

from vr_pipeline.rewards.checklist.fit import fit_weights

Result = TypeVar("Result")


def simulate(pairs: int, questions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Answers on both clips, labels (5 % ties) and prompts; a third of the questions speak against the clip."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(questions) < 0.7, rng.random(questions), -0.3 * rng.random(questions))
    share = rng.uniform(0.1, 0.9, questions)
    a = (rng.random((pairs, questions)) < share).astype(float)
    b = (rng.random((pairs, questions)) < share).astype(float)
    label = np.where(rng.random(pairs) < 1 / (1 + np.exp(-(a - b) @ truth)), "a", "b").astype("U3")
    label[rng.random(pairs) < 0.05] = "tie"
    return a, b, label, np.array([f"prompt {i // 4}" for i in range(pairs)])


def obvious_way(a: np.ndarray, b: np.ndarray, label: np.ndarray, penalty: float) -> np.ndarray:
    """Both orders, default solver, cold starts."""
    decided = label != "tie"
    difference = np.r_[(a - b)[decided], (b - a)[decided]]
    target = np.r_[label[decided] == "a", label[decided] == "b"]
    columns = np.arange(a.shape[1])
    while True:
        model = LogisticRegression(C=1 / (penalty * len(target)), fit_intercept=False, max_iter=1000)
        weights = model.fit(difference[:, columns], target).coef_[0]
        if weights.min() >= 0:
            full = np.zeros(a.shape[1])
            full[columns] = weights
            return full
        columns = np.delete(columns, weights.argmin())


def timed(run: Callable[[], Result]) -> tuple[float, float, Result]:
    """Seconds on the clock, seconds of processor time (which other programs do not lengthen), and the result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = run()
    return time.perf_counter() - wall, time.process_time() - processor, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=44_000)
    parser.add_argument("--questions", type=int, default=61)
    arguments = parser.parse_args()
    a, b, label, prompts = simulate(arguments.pairs, arguments.questions)
    fit_weights(a[:200], b[:200], label[:200])  # imports and first-call costs

    total, total_cpu, chosen = timed(lambda: fit_weights(a, b, label, groups=prompts))
    penalty = float(chosen.statistics["penalty"])
    print(f"cross-validation, fit, removals and intervals: {total:.2f} s (penalty {penalty:g})")
    fit, fit_cpu, weights = timed(
        lambda: fit_weights(a, b, label, groups=prompts, penalty=penalty, bootstrap_samples=0)
    )
    removed = len(weights.removals)
    print(f"fit with {removed} removals: {fit:.2f} s, {fit_cpu:.2f} s of processor time")
    obvious, obvious_cpu, reference = timed(lambda: obvious_way(a, b, label, penalty))
    difference = float(np.abs(weights.weights - reference).max())
    print(f"the obvious way: {obvious:.2f} s; largest difference of a weight {difference:.1e}")
    refit, _, _ = timed(
        lambda: fit_weights(a, b, label, groups=prompts, penalty=penalty, bootstrap_samples=40, bootstrap="refit")
    )
    replicate = (refit - fit) / 40
    print(f"one refit-bootstrap replicate: {replicate:.2f} s")
    rng = np.random.default_rng(0)
    wide_a, wide_b = rng.integers(0, 2, (2, 200, 2000)).astype(float)
    wide, wide_cpu, _ = timed(lambda: fit_weights(wide_a, wide_b, rng.choice(["a", "b"], 200)))
    print(f"200 pairs and 2,000 questions, with cross-validation: {wide:.2f} s, {wide_cpu:.2f} s of processor time")
    print(
        json.dumps(
            {
                "benchmark": "weights",
                "pairs": arguments.pairs,
                "questions": arguments.questions,
                "removals": removed,
                "seconds": round(fit, 3),
                "cpu_seconds": round(fit_cpu, 3),
                "seconds_with_cross_validation_and_intervals": round(total, 3),
                "cpu_seconds_with_cross_validation_and_intervals": round(total_cpu, 3),
                "seconds_obvious": round(obvious, 3),
                "cpu_seconds_obvious": round(obvious_cpu, 3),
                "ratio": round(obvious / fit, 2),
                "max_difference": difference,
                "seconds_per_refit_replicate": round(replicate, 3),
                "seconds_200_pairs_2000_questions": round(wide, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
