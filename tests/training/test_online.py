"""Rounds of online training: choice of prompts, replay, settings, and when they stop."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.errors import InputError
from vr_pipeline.schemas import TrainingPairs
from vr_pipeline.training.config import AlarmParameters, DpoTrainingParameters, ValidationParameters
from vr_pipeline.training.judged import validation_table
from vr_pipeline.training.online import (
    OnlineParameters,
    choose_prompts,
    judge_round,
    replayed,
    round_result,
    settings_of_round,
    uncertainty,
)


def prompts(count: int = 12) -> pd.DataFrame:
    splits = ["train", "train", "validation", "test"]
    rows = [
        {"prompt_id": f"p{one}", "prompt": f"text {one}", "source": "s", "split": splits[one % 4]}
        for one in range(count)
    ]
    return pd.DataFrame(rows)


def rewards(number: int, **of_prompts: float) -> pd.DataFrame:
    rows = [
        {"video_id": f"{name}-{clip}", "prompt_id": name, "uncertainty": value + change, "round": number}
        for name, value in of_prompts.items()
        for clip, change in enumerate((-0.1, 0.1))
    ]
    return pd.DataFrame(rows)


def test_all_prompts_of_the_splits_are_taken_unless_a_number_is_given() -> None:
    chosen = choose_prompts(prompts(), OnlineParameters(), 2)
    assert chosen["prompt_id"].tolist() == ["p0", "p1", "p4", "p5", "p8", "p9"]
    assert set(chosen["round"]) == {2}
    with pytest.raises(InputError, match="no prompt is left"):
        choose_prompts(prompts(2), OnlineParameters(splits=["test"]), 1)


def test_rounds_take_other_prompts_whatever_their_order() -> None:
    parameters = OnlineParameters(prompts_per_round=3)
    sets = [set(choose_prompts(prompts(40), parameters, number)["prompt_id"]) for number in range(1, 9)]
    assert all(len(one) == 3 for one in sets)
    assert len(set(map(frozenset, sets))) > 4
    turned = prompts(40).sample(frac=1, random_state=3)
    assert set(choose_prompts(turned, parameters, 1)["prompt_id"]) == sets[0]


def test_the_most_uncertain_prompts_come_first_and_unseen_ones_before_them() -> None:
    parameters = OnlineParameters(prompts_per_round=3, prompts_by="uncertainty")
    earlier = [rewards(1, p0=0.9, p1=0.2, p4=0.5, p5=0.3), rewards(2, p0=0.1, p8=0.4)]
    # p9 was never seen; the newer figure of p0 counts.
    chosen = choose_prompts(prompts(), parameters, 3, earlier)
    assert chosen["prompt_id"].tolist() == ["p4", "p8", "p9"]


def test_uncertainty_is_the_mean_entropy_of_answers_that_count() -> None:
    answers = pd.DataFrame(
        {
            "video_id": ["a", "a", "a", "b"],
            "p_yes": [0.5, 1.0, 0.5, 0.25],
            "gated": [False, False, True, False],
        }
    )
    found = uncertainty(answers)
    assert found["a"] == pytest.approx(0.5, abs=1e-6)
    assert found["b"] == pytest.approx(-(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75)))


def pairs(number: int, count: int) -> pd.DataFrame:
    rows = [
        {"prompt_id": f"p{one % 3}", "winner_video_id": f"{number}w{one}", "loser_video_id": f"{number}l{one}"}
        for one in range(count)
    ]
    return pd.DataFrame(rows).assign(round=number)


@settings(max_examples=30)
@given(counts=st.lists(st.integers(1, 8), min_size=1, max_size=3), wanted=st.integers(0, 30), seed=st.integers(0, 5))
def test_replayed_pairs_are_distinct_old_ones_whatever_their_order(counts: list[int], wanted: int, seed: int) -> None:
    parameters = OnlineParameters(seed=seed)
    earlier = [pairs(number, count) for number, count in enumerate(counts, start=1)]
    # A round's table also has what it replayed itself.
    earlier.append(pd.concat([pairs(9, 2), earlier[0].head(1)], ignore_index=True))
    pool = pd.concat(earlier).drop_duplicates()
    chosen = replayed(earlier, wanted, parameters, 10)
    assert len(chosen) == min(wanted, len(pool))
    assert not chosen["winner_video_id"].duplicated().any()
    assert chosen.merge(pool, how="left", indicator=True)["_merge"].eq("both").all()
    turned = replayed(earlier[::-1], wanted, parameters, 10)
    assert set(turned["winner_video_id"]) == set(chosen["winner_video_id"])


def validated(lead: float, *, spread: float = 0.05, alarm: str = "") -> pd.DataFrame:
    """The table of a training whose checkpoint leads the start by about ``lead`` on ten prompts."""
    names = [f"p{one}" for one in range(10)]
    start = [(name, float(place)) for place, name in enumerate(names)]
    better = [(name, place + lead + spread * (-1) ** place) for place, name in enumerate(names)]
    records: dict[int, dict[str, Any]] = {
        step: {
            **{"step": step, "policy": f"of {step}", "se": 0.1, "clips": 10, "failed": 0, "held_out": {}},
            **{"reward": sum(value for _, value in clips) / 10, "rewards": clips},
            "alarm": {"hold_out": "o", "dimension": "total", "since_step": 2, "change": -1.0, "p_value": 0.001}
            if alarm and step
            else None,
        }
        for step, clips in ((0, start), (4, better))
    }
    return validation_table(records, 4, with_alarms=bool(alarm))


def test_a_round_whose_interval_is_above_0_is_followed_by_another() -> None:
    verdict = judge_round(validated(1.0), OnlineParameters())
    assert verdict.accepted
    assert not verdict.stopped
    assert verdict.gain == pytest.approx(1.0)
    assert 0 < verdict.ci_low < 1 < verdict.ci_high


@pytest.mark.parametrize(("lead", "spread"), [(0.1, 1.0), (-1.0, 0.05)])
def test_a_round_whose_interval_is_not_above_0_is_the_last_and_its_policy_is_rejected(
    lead: float, spread: float
) -> None:
    verdict = judge_round(validated(lead, spread=spread), OnlineParameters())
    assert not verdict.accepted
    assert "not above 0" in verdict.stopped
    assert verdict.ci_low <= 0
    # Without this rule the better mean counts, and rounds continue.
    other = judge_round(validated(lead, spread=spread), OnlineParameters(stop_without_gain=False))
    assert not other.stopped
    assert other.accepted == (lead > 0)


def test_an_alarm_that_acts_ends_the_rounds() -> None:
    told = validated(1.0, alarm="yes")
    oracle = {"oracle": {"type": "signals", "total": "motion"}}
    for action, stops in (("report", False), ("choose", True), ("stop", True)):
        alarm = AlarmParameters(action=action)
        settings = ValidationParameters(alarm=alarm, hold_outs=oracle)
        verdict = judge_round(told, OnlineParameters(), settings)
        assert verdict.accepted
        assert bool(verdict.stopped) == stops
        assert not stops or "alarm for reward hacking" in verdict.stopped


def test_rounds_without_validation_keep_every_policy_and_none_is_kept_without_a_checkpoint() -> None:
    assert judge_round(validated(1.0).head(0), OnlineParameters()) == (
        True,
        "",
        *(pytest.approx(math.nan, nan_ok=True),) * 3,
    )
    failed = validated(1.0).assign(chosen=[True, False])
    assert not judge_round(failed, OnlineParameters()).accepted


def test_the_result_of_a_round_names_the_round_that_made_its_policy() -> None:
    table = pd.concat([pairs(2, 3), pairs(1, 2)], ignore_index=True)
    rejected = judge_round(validated(-1.0), OnlineParameters())
    first = round_result(judge_round(validated(1.0), OnlineParameters()), 1, None, pairs(1, 4))
    assert (first["policy_of"], first["new_pairs"], first["replayed_pairs"]) == (1, 4, 0)
    second = round_result(rejected, 2, first, table)
    assert (second["policy_of"], second["new_pairs"], second["replayed_pairs"]) == (1, 3, 2)
    assert round_result(rejected, 1, None, table)["policy_of"] == 0


def test_settings_of_a_round_have_its_seed_and_the_changes() -> None:
    dpo = DpoTrainingParameters(
        training={"steps": 100}, recipes={"mpo": {"beta": 7.0}}, validation={"seed": 8, "alarm": {"level": 0.2}}
    )
    changes = {"videos_per_prompt": 3, "alarm": {"action": "report"}}
    parameters = OnlineParameters(training={"steps": 5}, validation=changes)
    first, second = (settings_of_round(dpo, parameters, number) for number in (1, 2))
    assert (first.training.steps, first.training.beta) == (5, 7.0)
    assert first.training.seed != second.training.seed
    assert first.validation is not None
    assert (first.validation.videos_per_prompt, first.validation.seed) == (3, 8)
    assert first.validation.alarm == AlarmParameters(level=0.2)
    assert settings_of_round(dpo, OnlineParameters(validation=None), 1).validation is None
    assert first == settings_of_round(dpo, parameters, 1)
    for wrong, told in (
        ({"training": {"stepz": 3}}, "settings of the rounds are wrong"),
        ({"validation": {"sead": 3}}, "settings of the rounds are wrong"),
        ({"training": {"method": "full"}}, "train adapters"),
    ):
        with pytest.raises(InputError, match=told):
            settings_of_round(dpo, OnlineParameters.model_validate(wrong), 1)


def test_the_learning_rate_decays_from_round_to_round() -> None:
    dpo = DpoTrainingParameters.model_validate({"training": {"learning_rate": 1e-3}})
    parameters = OnlineParameters(learning_rate_decay=0.5)
    rates = [settings_of_round(dpo, parameters, number).training.learning_rate for number in (1, 2, 3)]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4])
    assert settings_of_round(dpo, OnlineParameters(), 3).training.learning_rate == 1e-3
    own = OnlineParameters(training={"learning_rate": 4e-4}, learning_rate_decay=0.5)
    assert settings_of_round(dpo, own, 2).training.learning_rate == pytest.approx(2e-4)


def test_pairs_of_a_round_fit_their_schema() -> None:
    table = pairs(3, 2).assign(
        recipe="mpo", prompt="t", winner_sha256="a", loser_sha256="b", winner_reward=1.0, loser_reward=0.0
    )
    assert TrainingPairs.validate(table)["round"].tolist() == [3, 3]
