"""Short trainings: measured on pairs that were not trained on, kept, taken up again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from toy_training import Toy
from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.preference_trainer import Validation
from vr_pipeline.training.probe import measure as module
from vr_pipeline.training.probe.grid import Costs, Grid
from vr_pipeline.training.probe.measure import Cell, Probe, planned, split_by_prompt


class Judge:
    """Judges a policy by a number that the test knows."""

    identity = "judge"

    def __init__(self, parameters: DpoTrainingParameters) -> None:
        assert parameters.training.steps == 3

    def judging(self, generator: Any) -> Validation:
        # An adapter left behind by another training would be judged as the original.
        assert not getattr(generator.denoiser, "peft_config", None)

        def judge(step: int) -> float:
            return 3.0

        return Validation(judge, self.identity)

    def table(self, log: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(
            {"step": [0, 3], "reward": [1.0, 3.0], "gap_low": [-3.0, math.nan], "gap_high": [-1.0, math.nan]}
        )

    def close(self) -> None:
        pass


@pytest.fixture
def make(toy: Toy, tmp_path: Path) -> Callable[..., Probe]:
    def build(**options: Any) -> Probe:
        parameters = DpoTrainingParameters(training=toy.parameters(**options.pop("training", {})))
        return Probe(toy.data, toy.settings, parameters, tmp_path, **options)

    return build


@pytest.mark.parametrize("count", [2, 5, 40])
def test_no_prompt_is_both_trained_on_and_measured(toy: Toy, count: int) -> None:
    pairs = [replace(toy.pairs[0], pair_id=f"{n}", prompt_id=f"prompt {n % count}") for n in range(3 * count)]
    kept, measured = split_by_prompt(pairs, seed=1)
    assert kept
    assert measured
    assert not {pair.prompt_id for pair in kept} & {pair.prompt_id for pair in measured}
    assert split_by_prompt(pairs[::-1], seed=1)[1] == measured


def test_pairs_of_one_prompt_cannot_be_probed(toy: Toy) -> None:
    with pytest.raises(InputError, match="have the same prompt"):
        split_by_prompt([toy.pairs[0]], seed=0)


def test_a_cell_says_what_held_out_pairs_and_the_reward_say(make: Callable[..., Probe]) -> None:
    cell = make(validation=Judge).run(1e-2, 10.0, 3)
    assert (cell.gain, cell.gain_low, cell.gain_high) == (2.0, 1.0, 3.0)
    assert cell.accuracy is not None
    assert 0 <= cell.accuracy <= 1
    assert cell.norm_ratio is not None
    assert cell.norm_ratio > 0
    assert cell.winner_rise is not None
    assert cell.loss is not None
    assert cell.stopped == ""


def test_a_higher_learning_rate_changes_held_out_winners_more(make: Callable[..., Probe]) -> None:
    probe = make()
    gentle, wild = probe.run(1e-4, 10.0, 4), probe.run(1.0, 10.0, 4)
    assert gentle.gain is None
    assert gentle.winner_rise is not None
    assert wild.winner_rise is not None
    assert abs(gentle.winner_rise) < 0.05 < abs(wild.winner_rise)


def test_what_was_measured_is_not_measured_again(make: Callable[..., Probe], monkeypatch: pytest.MonkeyPatch) -> None:
    first = make().run(1e-2, 10.0, 3)

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train_on_pairs", never)
    assert make().run(1e-2, 10.0, 3) == first
    with pytest.raises(AssertionError):
        make().run(1e-2, 20.0, 3)
    with pytest.raises(AssertionError):
        make(training={"batch_size": 2}).run(1e-2, 10.0, 3)


def test_a_training_that_stops_is_a_result_and_wrong_settings_are_an_error(
    make: Callable[..., Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any, observe: Any, **options: Any) -> None:
        observe({"step": 1, "loss": 9.0, "winner_change": 2.0, "winner_reference_error": 0.5})
        raise PipelineError("Training collapsed.")

    monkeypatch.setattr(module, "train_on_pairs", stop)
    cell = make().run(1e-2, 10.0, 3)
    assert cell == Cell(1e-2, 10.0, winner_rise=4.0, loss=9.0, stopped="Training collapsed.")

    def reject(*arguments: Any, **options: Any) -> None:
        raise InputError("wrong", remedy="mend it")

    monkeypatch.setattr(module, "train_on_pairs", reject)
    with pytest.raises(InputError):
        make().run(1e-2, 20.0, 3)


def test_a_training_that_the_automatic_stop_ended_is_said_to_have_gone_wrong(make: Callable[..., Probe]) -> None:
    guard = {"max_winner_change": 0.01, "window": 1}
    cell = make(training={"safeguard": guard}).run(10.0, 10.0, 4)
    assert "it failed from step" in cell.stopped
    assert cell.accuracy is not None


def test_costs_are_those_of_a_step_and_a_judgement(make: Callable[..., Probe]) -> None:
    costs = make(validation=Judge).costs()
    assert costs.step > 0
    assert costs.judgement > 0


def test_a_plan_is_kept_for_the_same_question_only(tmp_path: Path) -> None:
    first, second = ((Grid((1e-3,), (3.0, 9.0), steps), Costs(0.5, 2.0)) for steps in (8, 9))
    assert planned(tmp_path, "a", lambda: first) == first
    assert planned(tmp_path, "a", lambda: second) == first
    assert planned(tmp_path, "b", lambda: second) == second
