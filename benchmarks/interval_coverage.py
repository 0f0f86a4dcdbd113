"""How often do the report's intervals contain the truth if there are few prompts?

Simulated evaluations with a known truth: clips of a prompt share its effect; in the skewed worlds these effects have an
exponential distribution; in the crossed world 8 people vote on every pair, and people and prompts have effects.
Prints one row per figure with its coverage of 95 % intervals by number of prompts, and the mean width.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
from scipy.special import ndtr

from vr_pipeline.annotation.agreement import policy_win_rate
from vr_pipeline.statistics.clustered import bootstrap_by_prompt, clustered_mean, paired_gain, win_rate

PROMPTS = (5, 8, 12, 20, 50)
CLIPS = 4
TRUTH = 0.3
"""Mean of the simulated gains, in standard deviations of the prompts' effects."""
PEOPLE = 8
SLOW = 8
"""Simulations with a bootstrap or tables are so many times fewer."""


def effects(random: np.random.Generator, prompts: int, skewed: bool) -> np.ndarray:
    """Effects of prompts with mean 0 and deviation 1."""
    return random.exponential(size=prompts) - 1.0 if skewed else random.normal(size=prompts)


def values(random: np.random.Generator, prompts: int, skewed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values of clips around the truth, and their prompts."""
    names = np.repeat(np.arange(prompts), CLIPS)
    return TRUTH + effects(random, prompts, skewed)[names] + random.normal(size=len(names)), names


@cache
def true_share(of_prompts: float, of_rest: float, skewed: bool) -> float:
    """Share of positive values: truth, effects of prompts and normal noise, by their deviations."""
    if not skewed:
        return float(ndtr(TRUTH / math.hypot(of_prompts, of_rest)))
    quantiles = -np.log1p(-(np.arange(100_000) + 0.5) / 100_000) - 1.0
    return float(ndtr((TRUTH + of_prompts * quantiles) / of_rest).mean())


def mean_of_clips(random: np.random.Generator, prompts: int, skewed: bool) -> tuple[float, float, float]:
    """Ends and truth of a mean over clips."""
    found = clustered_mean(*values(random, prompts, skewed))
    return found.ci_low, found.ci_high, TRUTH


def gain(random: np.random.Generator, prompts: int, skewed: bool) -> tuple[float, float, float]:
    """Ends and truth of a gain over a baseline whose clips have noise of their own."""
    x, names = values(random, prompts, skewed)
    found = paired_gain(x, names, random.normal(size=len(names)), names)
    return found.ci_low, found.ci_high, TRUTH


def share_won(random: np.random.Generator, prompts: int, skewed: bool) -> tuple[float, float, float]:
    """Ends and truth of the share of comparisons won."""
    found = win_rate(*values(random, prompts, skewed))
    return found.ci_low, found.ci_high, true_share(1.0, 1.0, skewed)


def accuracy(random: np.random.Generator, prompts: int, skewed: bool) -> tuple[float, float, float]:
    """Ends and truth of an accuracy by bootstrap: pairs of a prompt are right with its own probability."""
    chance = random.beta(6, 3, size=prompts) if not skewed else random.beta(8, 1, size=prompts)
    names = np.repeat(np.arange(prompts), CLIPS)
    right = random.random(len(names)) < chance[names]
    low, high = bootstrap_by_prompt(lambda rows: float(right[rows].mean()), names, kinds=["share"], samples=200)
    return float(low), float(high), 8 / 9 if skewed else 2 / 3


def share_won_by_people(random: np.random.Generator, prompts: int, skewed: bool) -> tuple[float, float, float]:
    """Ends and truth of a win rate whose annotators and prompts are crossed."""
    person, pair = np.meshgrid(np.arange(PEOPLE), np.arange(prompts * CLIPS), indexing="ij")
    taste, of_prompt = 0.7 * random.normal(size=PEOPLE), 0.7 * effects(random, prompts, skewed)
    noise = random.normal(size=person.shape)
    wins = TRUTH + taste[person] + of_prompt[pair // CLIPS] + noise > 0
    table = pd.DataFrame(
        {
            "pair_id": pair.ravel().astype(str),
            "prompt_id": (pair // CLIPS).ravel().astype(str),
            "annotator": person.ravel().astype(str),
            "generator_a": "ours",
            "generator_b": "theirs",
            "preference": np.where(wins.ravel(), "a", "b"),
        }
    )
    found = policy_win_rate(table, "ours")
    return float(found["ci_low"]), float(found["ci_high"]), true_share(0.7, math.sqrt(1 + 0.49), skewed)


Figures = Callable[[np.random.Generator, int, bool], tuple[float, float, float]]
FIGURES: dict[str, tuple[Figures, bool]] = {
    "mean over clips": (mean_of_clips, False),
    "gain over a baseline": (gain, False),
    "win rate": (share_won, False),
    "accuracy, bootstrap": (accuracy, True),
    "win rate by people, crossed": (share_won_by_people, True),
}


def coverage(figure: Figures, prompts: int, skewed: bool, simulations: int) -> tuple[float, float]:
    """Return the share of intervals that contain the truth, and their mean width; no interval does not."""
    ends = np.array([figure(np.random.default_rng([prompts, seed]), prompts, skewed) for seed in range(simulations)])
    low, high, truth = ends.T
    return float(((low <= truth) & (truth <= high)).mean()), float(np.nanmean(high - low))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    arguments = parser.parse_args()
    results = {}
    for skewed in (False, True):
        for name, (figure, slow) in FIGURES.items():
            simulations = max(arguments.simulations // (SLOW if slow else 1), 2)
            row = [coverage(figure, prompts, skewed, simulations) for prompts in PROMPTS]
            label = f"{name}{', skewed' if skewed else ''}"
            results[label] = {"simulations": simulations, "coverage": dict(zip(map(str, PROMPTS), row, strict=True))}
            print(f"{label:<36}" + "".join(f"{share:>7.1%} ({width:.2f})" for share, width in row), flush=True)
    print(json.dumps({"benchmark": "interval_coverage", "results": results}))


if __name__ == "__main__":
    main()
