"""Simulated people prefer as often as their model says."""

from __future__ import annotations

import numpy as np
import pytest

from vr_pipeline.micro_world.config import PreferenceParameters
from vr_pipeline.micro_world.preferences import UTILITY, simulate_preferences, utilities
from vr_pipeline.micro_world.world import Scene, answers
from vr_pipeline.schemas import HumanPreferences


def logistic(value: float) -> float:
    return 1 / (1 + np.exp(-value))


@pytest.mark.parametrize(("difference", "temperature", "width"), [(0.0, 1.0, 0.4), (1.0, 0.6, 0.25), (2.0, 1.5, 0.0)])
def test_shares_are_those_of_the_model(difference: float, temperature: float, width: float) -> None:
    count = 3000
    # Two clips for each of many prompts, the first better by the same amount everywhere.
    prompts = [f"prompt {row // 2}" for row in range(2 * count)]
    names = [f"{'better' if row % 2 == 0 else 'worse'} {row // 2}" for row in range(2 * count)]
    utility = np.array([difference if row % 2 == 0 else 0.0 for row in range(2 * count)])
    table = simulate_preferences(
        names,
        prompts,
        utility,
        PreferenceParameters(num_pairs=count, temperature=temperature, tie_width=width),
        seed=0,
    )
    assert len(table) == count
    winner = np.where(table["preference"] == "a", table["video_id_a"], table["video_id_b"])
    tied = (table["preference"] == "tie").to_numpy()
    better = np.array([name.startswith("better") for name in winner]) & ~tied
    expected = logistic((difference - width) / temperature)
    expected_tie = logistic((difference + width) / temperature) - expected
    for share, probability in ((better.mean(), expected), (tied.mean(), expected_tie)):
        assert abs(share - probability) < 4 * np.sqrt(probability * (1 - probability) / count) + 1e-9
    # Which of the two is called A says nothing.
    first = table["video_id_a"].str.startswith("better").mean()
    assert abs(first - 0.5) < 4 * np.sqrt(0.25 / count)


def test_pairs_stay_within_a_prompt_and_are_the_same_every_time() -> None:
    names = [f"clip {row}" for row in range(12)]
    prompts = [f"prompt {row // 4}" for row in range(12)]
    parameters = PreferenceParameters(num_pairs=14)
    table = simulate_preferences(names, prompts, np.arange(12.0), parameters, seed=0)
    HumanPreferences.validate(table)
    prompt_of = dict(zip(names, prompts, strict=True))
    assert (table["video_id_a"].map(prompt_of) == table["prompt"]).all()
    assert (table["video_id_b"].map(prompt_of) == table["prompt"]).all()
    assert table["pair_id"].is_unique
    assert table.equals(simulate_preferences(names, prompts, np.arange(12.0), parameters, seed=0))
    assert not table.equals(simulate_preferences(names, prompts, np.arange(12.0), parameters, seed=1))
    # No more pairs than there are.
    everything = simulate_preferences(names, prompts, np.arange(12.0), PreferenceParameters(num_pairs=99), seed=0)
    assert len(everything) == 3 * 6


def test_utility_is_the_weighted_sum_of_the_answers() -> None:
    questions = list(UTILITY)
    flawless = answers(Scene("red", "ball", "left", "black", speed=2))
    flawed = answers(Scene("red", "ball", "left", "black", speed=0, blur=1), "red ring moves left on black")
    values = np.array([[float(answer[question]) for question in questions] for answer in (flawless, flawed)])
    lost = sum(UTILITY[name] for name in ("shape_matches", "sharp", "moves_fast", "moves_clearly"))
    assert utilities(values, questions) == pytest.approx([11.9, 11.9 - lost])
