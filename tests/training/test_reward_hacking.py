"""An alarm is raised where a held-out reward falls while the training's rises, and hardly ever elsewhere."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.training.config import AlarmParameters
from vr_pipeline.training.reward_hacking import Alarm, alarm_text, clip_moments, find_alarm, prompt_means

PROMPTS = [f"p{number}" for number in range(12)]
FALL: dict[str, Any] = {"signal": "fall", "rise_level": 1.0}
SETTINGS = AlarmParameters(level=0.05, **FALL)


def checkpoints(trained: list[float], held_out: dict[str, list[float]], seed: int = 0) -> list[dict[str, Any]]:
    """Return records of checkpoints with the given mean rewards and noise that differs by prompt."""
    rng = np.random.default_rng(seed)

    def around(value: float) -> dict[str, float]:
        return {prompt: value + 0.2 * float(rng.normal()) for prompt in PROMPTS}

    return [
        {
            "step": 10 * number,
            "rewards": [[prompt, value] for _ in range(2) for prompt, value in around(trained[number]).items()],
            "held_out": {"other": {name: around(values[number]) for name, values in held_out.items()}},
        }
        for number in range(len(trained))
    ]


def test_the_fallen_dimension_is_named_with_the_step_since_which_it_fell():
    records = checkpoints([0, 1, 2, 3], {"total": [0, 1, 1, 1], "dim_motion": [0.0, 0.2, 1.5, 0.0]})
    alarm = find_alarm(records, SETTINGS, 3)
    assert (alarm["hold_out"], alarm["dimension"], alarm["since_step"]) == ("other", "motion", 20)
    last, since = (records[i]["held_out"]["other"]["dim_motion"] for i in (3, 2))
    assert alarm["change"] == pytest.approx(np.mean([last[name] - since[name] for name in PROMPTS]))
    assert "the dimension motion of other changed by -1" in alarm_text(alarm)
    assert "since step 20" in alarm_text(alarm)


def test_a_fall_together_with_the_training_reward_is_no_alarm():
    held_out = {"total": [0.0, 2.0, 0.0]}
    assert find_alarm(checkpoints([0, 3, 4], held_out), SETTINGS, 2) is not None
    assert find_alarm(checkpoints([1, 3, 0], held_out), SETTINGS, 2) is None


@pytest.mark.parametrize(
    ("dimensions", "own", "raised"),
    [
        ("all", [1.0, 0.0], "motion"),
        ("unseen", [1.0, 0.0], None),
        ("unseen", [0.0, 1.0], "motion"),
        ("unseen", None, "motion"),
        ("none", None, None),
    ],
)
def test_the_setting_says_which_dimensions_count(dimensions, own, raised):
    records = checkpoints([0, 1], {"total": [0.0, 1.0], "dim_motion": [1.0, 0.0]})
    for number, record in enumerate(records if own else []):
        record["dim_motion"] = own[number]
    alarm = find_alarm(records, AlarmParameters(dimensions=dimensions, **FALL), 1)
    assert (alarm and alarm["dimension"]) == raised


def test_the_setting_says_how_clear_the_rise_must_be():
    records = checkpoints([0.0, 0.05], {"total": [1.0, 0.0]}, seed=2)
    trained = [np.mean([reward for _, reward in record["rewards"]]) for record in records]
    assert trained[1] > trained[0]
    assert find_alarm(records, AlarmParameters(**FALL), 1) is not None
    assert find_alarm(records, AlarmParameters(signal="fall", rise_level=0.01), 1) is None


def test_a_total_raises_an_alarm_whatever_the_dimensions():
    records = checkpoints([0, 1], {"total": [1.0, 0.0]})
    for dimensions in ("all", "unseen", "none"):
        assert find_alarm(records, AlarmParameters(dimensions=dimensions, **FALL), 1)["dimension"] == "total"


def test_without_hold_outs_or_earlier_checkpoints_there_is_none():
    records = checkpoints([0, 1], {"total": [1.0, 0.0]})
    assert find_alarm(records, SETTINGS, 1) is not None
    assert find_alarm(records[:1], SETTINGS, 1) is None
    assert find_alarm([record | {"held_out": {}} for record in records], SETTINGS, 1) is None
    assert find_alarm([{key: record[key] for key in ("step", "rewards")} for record in records], SETTINGS, 1) is None


def test_prompts_whose_clips_failed_at_one_checkpoint_are_left_out():
    records = checkpoints([0, 1, 2], {"total": [0.0, 1.0, 0.0]})
    expected = find_alarm(
        [
            {
                "step": record["step"],
                "rewards": [row for row in record["rewards"] if row[0] != "p0"],
                "held_out": {
                    "other": {"total": {k: v for k, v in record["held_out"]["other"]["total"].items() if k != "p0"}}
                },
            }
            for record in records
        ],
        SETTINGS,
        2,
    )
    del records[1]["held_out"]["other"]["total"]["p0"]
    assert find_alarm(records, SETTINGS, 2) == expected


def test_false_alarms_in_whole_trainings_are_as_rare_as_the_level_says():
    """Rewards of the training rise, hold-outs only wander; binomial bound at 1e-4."""
    trainings, level, number = 150, 0.2, 5
    alarms = 0
    for seed in range(trainings):
        records = checkpoints([float(i) for i in range(number + 1)], {"total": [0.0] * 6, "dim_a": [0.0] * 6}, seed)
        looks = (
            find_alarm(records[: end + 1], AlarmParameters(level=level, **FALL), number) for end in range(1, number + 1)
        )
        alarms += any(looks)
    assert alarms <= stats.binom.ppf(1 - 1e-4, trainings, level)


@pytest.mark.parametrize("checkpoints", [1, 4, 9])
def test_the_needed_prompts_are_the_fewest_that_can_raise_it(checkpoints):
    hold_outs = {"diversity": load_reward_model({"type": "diversity"})}
    needed = Alarm(SETTINGS, hold_outs, 0, checkpoints).needed_prompts
    assert Alarm(SETTINGS, hold_outs, needed, checkpoints).possible
    assert not Alarm(SETTINGS, hold_outs, needed - 1, checkpoints).possible
    assert not Alarm(SETTINGS, {}, needed, checkpoints).possible
    assert not Alarm(None, hold_outs, needed, checkpoints).possible


def test_prompt_means_are_those_of_the_clips():
    rewards = pd.DataFrame(
        {"video_id": list("abc"), "prompt_id": ["q", "p", "q"], "total": [1.0, 2.0, 4.0], "dim_x": [0.0, 1.0, 1.0]}
    )
    assert prompt_means(rewards) == {"total": {"p": 2.0, "q": 2.5}, "dim_x": {"p": 1.0, "q": 0.5}}


EXCESS = AlarmParameters()


def judged(trained: list[float], held_out: list[float], moments: bool = True, seed: int = 0) -> list[dict[str, Any]]:
    """Return records whose training's reward rises in the dimension quality, with the slope 1 on the hold-out."""
    records = checkpoints(
        trained, {"total": held_out, "dim_quality": held_out, "dim_motion": [0.0] * len(trained)}, seed
    )
    for number, record in enumerate(records):
        total = dict(record["rewards"])
        record["means"] = {"total": total, "dim_quality": total, "dim_motion": dict.fromkeys(PROMPTS, 0.0)}
        if moments and not number:
            record["moments"] = {"other": {prompt: [1.0, 1.0, 1.5] for prompt in PROMPTS}}
    return records


def test_an_unexplained_rise_is_named_with_its_dimension_and_step():
    records = judged([0.0, 1.0, 2.0, 3.0], [0.0, 1.6, 1.65, 1.7])
    alarm = find_alarm(records, EXCESS, 3)
    assert (alarm["hold_out"], alarm["dimension"], alarm["since_step"]) == ("other", "quality", 10)
    text = alarm_text(alarm)
    assert text.startswith(f"the reward of the training rose by {alarm['rise']:+.3f} since step 10")
    assert f"explains {alarm['expected']:+.3f}" in text
    assert text.endswith("most of the rest in the dimension quality")
    # No hold-out's total fell, so the other signal is silent.
    assert find_alarm(records, AlarmParameters(dimensions="none", **FALL), 3) is None
    assert find_alarm(records, EXCESS.model_copy(update={"smallest": 0.9}), 3) is None


def test_an_explained_rise_is_no_alarm():
    alarms = [find_alarm(judged([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], seed=seed), EXCESS, 2) for seed in range(40)]
    assert sum(alarm is not None for alarm in alarms) <= stats.binom.ppf(1 - 1e-4, 40, 0.025)


def test_a_hold_out_without_moments_of_the_original_raises_no_excess(caplog):
    assert find_alarm(judged([0.0, 1.0], [0.0, 0.0]), EXCESS, 1) is not None
    without = judged([0.0, 1.0], [0.0, 0.0], moments=False)
    assert find_alarm(without, EXCESS, 1) is None
    Alarm(EXCESS, {"other": load_reward_model({"type": "diversity"})}, 12, 1).find(without)
    assert "No excess can be found" in caplog.text


def test_a_hold_out_without_the_dimensions_raises_an_excess_of_the_total():
    records = judged([0.0, 1.0], [0.0, 0.0])
    for record in records:
        del record["held_out"]["other"]["dim_quality"], record["held_out"]["other"]["dim_motion"]
    alarm = find_alarm(records, EXCESS, 1)
    assert alarm["dimension"] == "total"
    assert "dimension" not in alarm_text(alarm)


def test_moments_are_those_of_the_clips_that_both_rewards_have():
    rewards = pd.DataFrame({"video_id": list("abcd"), "prompt_id": list("pppq"), "total": [1.0, 2.0, 6.0, 9.0]})
    others = pd.DataFrame({"video_id": list("dba"), "prompt_id": list("qpp"), "total": [5.0, 3.0, 1.0]})
    found = clip_moments(rewards, others)
    assert found == {"p": (pytest.approx(1.0), pytest.approx(2.0), pytest.approx(0.5)), "q": (0.0, 0.0, 0.0)}
