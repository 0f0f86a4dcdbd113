"""Simulated people prefer as often as their model says."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.checklist import load_checklist
from vr_pipeline.micro_world.config import CriterionParameters, PreferenceParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import (
    CRITERIA,
    UTILITY,
    simulate_preferences,
    utilities,
    utilities_by_criterion,
)
from vr_pipeline.micro_world.world import SIZE, Scene, answers
from vr_pipeline.schemas import HumanPreferences
from vr_pipeline.video.read import read_frames

ROOT = Path(__file__).resolve().parents[2]
CHECKLIST = load_checklist(ROOT / "conf/base/checklist.yml")


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


def test_every_dimension_belongs_to_one_criterion_and_the_parts_make_the_whole() -> None:
    assert sorted(name for names in CRITERIA.values() for name in names) == sorted(CHECKLIST.dimensions)
    said = np.random.default_rng(0).random((7, len(CHECKLIST.question_ids)))
    parts = utilities_by_criterion(said, CHECKLIST)
    assert np.sum(list(parts.values()), axis=0) == pytest.approx(utilities(said, CHECKLIST.question_ids))
    # A clip that loses the steadiness of its brightness loses in motion alone.
    worse = said.copy()
    worse[:, CHECKLIST.question_ids.index("brightness_steady")] -= 0.5
    lost = {name: values - utilities_by_criterion(worse, CHECKLIST)[name] for name, values in parts.items()}
    assert lost["motion"] == pytest.approx(np.full(7, 0.5 * UTILITY["brightness_steady"]))
    assert not lost["visual"].any()
    assert not lost["text"].any()


def test_criteria_are_compared_beside_the_overall_preference() -> None:
    count = 3000
    prompts = [f"prompt {row // 2}" for row in range(2 * count)]
    names = [f"{'better' if row % 2 == 0 else 'worse'} {row // 2}" for row in range(2 * count)]
    better = np.array([1.0 if row % 2 == 0 else 0.0 for row in range(2 * count)])
    criteria = CriterionParameters(temperature=1.2, tie_width=0.2)
    parameters = PreferenceParameters(num_pairs=count, temperature=0.6, tie_width=0.25, criteria=criteria)
    plain = simulate_preferences(names, prompts, better, parameters, seed=0)
    table = simulate_preferences(
        names, prompts, better, parameters, seed=0, by_criterion={"visual": better, "motion": -better}
    )
    assert table[plain.columns].equals(plain)
    wins = {}
    for column in ("preference", "preference_visual", "preference_motion"):
        winner = np.where(table[column] == "a", table["video_id_a"], table["video_id_b"])
        wins[column] = np.array([name.startswith("better") for name in winner]) & (table[column] != "tie").to_numpy()
    expected = {"preference": 0.75 / 0.6, "preference_visual": 0.8 / 1.2, "preference_motion": -1.2 / 1.2}
    expected = {column: logistic(odds) for column, odds in expected.items()}
    for column, share in expected.items():
        assert abs(wins[column].mean() - share) < 4 * np.sqrt(share * (1 - share) / count)
    # Noise of one criterion says nothing about another's.
    for first, second in combinations(expected, 2):
        share = expected[first] * expected[second]
        assert abs((wins[first] & wins[second]).mean() - share) < 4 * np.sqrt(share * (1 - share) / count)


def test_the_shipped_preferences_follow_from_the_shipped_clips() -> None:
    folder = ROOT / "data/01_raw/micro_world"
    clips = pd.read_csv(folder / "preference_clips.csv")
    step = 2  # Clips are stored enlarged.
    frames = np.stack([read_frames(folder / "preference_videos" / name)[:, ::step, ::step] for name in clips["file"]])
    assert frames.shape[2:4] == (SIZE, SIZE)
    oracle = Oracle.load(ROOT / "data/06_models/micro_world/oracle.safetensors")
    said = oracle.probabilities(frames, clips["prompt"].tolist(), CHECKLIST.question_ids)
    made = simulate_preferences(
        clips["video_id"].tolist(),
        clips["prompt"].tolist(),
        utilities(said, CHECKLIST.question_ids),
        PreferenceParameters(),
        seed=0,
        by_criterion=utilities_by_criterion(said, CHECKLIST),
    )
    assert made.to_csv(index=False) == (folder / "human_preferences.csv").read_text(encoding="utf-8")
