"""Probabilities against binary answers, and the tolerance of dominance, with a simulated judge whose errors are known.

Clips have or lack sixteen qualities in five dimensions with known values; the judge sees the truth through noise on the
log odds. Weights are fitted on 360 simulated preferences and tested on 120; pairs are chosen in 512 groups of four.
"""

from __future__ import annotations

import argparse
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.pairs.selection import select_pairs
from vr_pipeline.rewards.checklist.fit import fit_weights
from vr_pipeline.rewards.checklist.linear import dimension_scores, score
from vr_pipeline.rewards.checklist.weights import AnswerKind
from vr_pipeline.statistics.agreement import pairwise_accuracy

SIZES = {"alignment": 4, "quality": 4, "dynamics": 2, "preservation": 3, "stability": 3}
IDS = tuple(f"{name} {k}" for name, size in SIZES.items() for k in range(size))
# Only what dimension_scores reads of a checklist.
CHECKLIST: Any = SimpleNamespace(
    dimensions=list(SIZES),
    questions=[SimpleNamespace(question_id=name, dimension=name.split()[0]) for name in IDS],
)


def judged(clips: int, share: np.ndarray, noise: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The truth about each clip and the judge's probabilities of yes, arrays [clips, questions]."""
    truth = (rng.random((clips, len(IDS))) < share).astype(float)
    return truth, 1 / (1 + np.exp(-(3 * (2 * truth - 1) + rng.normal(0, noise, truth.shape))))


def world(seed: int, noise: float, kind: AnswerKind, tolerance: float) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    value, share = rng.uniform(0.5, 1.1, len(IDS)), rng.uniform(0.6, 0.95, len(IDS))
    truth, probability = judged(960, share, noise, rng)
    seen = probability if kind == "probability" else (probability > 0.5).astype(float)
    a, b = np.arange(0, 960, 2), np.arange(1, 960, 2)
    felt = (truth[a] - truth[b]) @ value + rng.logistic(scale=0.6, size=480)
    label = np.where(np.abs(felt) < 0.25, "tie", np.where(felt > 0, "a", "b"))
    weights = fit_weights(seen[a[:360]], seen[b[:360]], label[:360], question_ids=IDS, bootstrap_samples=0)
    difference = score(seen[a[360:]], weights) - score(seen[b[360:]], weights)
    truth, probability = judged(2048, share, noise, rng)
    seen = probability if kind == "probability" else (probability > 0.5).astype(float)
    rewards = dimension_scores(seen, weights, CHECKLIST).assign(
        total=score(seen, weights),
        video_id=[f"{i:04d}" for i in range(2048)],
        prompt_id=[f"{i // 4:04d}" for i in range(2048)],
    )
    pairs = select_pairs(rewards, "mpo", dominance_tolerance=tolerance)
    better = (truth @ value)[pairs["winner_video_id"].astype(int)] - (truth @ value)[
        pairs["loser_video_id"].astype(int)
    ]
    return {
        "answers_right": float(((probability > 0.5) == truth).mean()),
        "diff": pairwise_accuracy(difference, label[360:]).diff,
        "mpo_pairs": float(len(pairs)),
        "pairs_right": float((better > 0).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--noise", type=float, default=3.0, help="standard deviation on the log odds; the signal is 3")
    arguments = parser.parse_args()
    settings: list[tuple[str, AnswerKind, float]] = [
        ("binary", "binary", 0.0),
        ("probability", "probability", 0.0),
        ("probability, tolerance 0.1", "probability", 0.1),
    ]
    table = pd.DataFrame(
        {
            name: pd.DataFrame(
                [world(seed, arguments.noise, kind, tolerance) for seed in range(arguments.worlds)]
            ).mean()
            for name, kind, tolerance in settings
        }
    ).round(3)
    print(table.T.to_string())
    print(json.dumps({"benchmark": "answer_kinds", "worlds": arguments.worlds, **table.to_dict()}))


if __name__ == "__main__":
    main()
