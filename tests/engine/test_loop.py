"""The loop on a task of three numbers: its optimiser by hand, kills at every step, averages, validation, observers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from vr_pipeline.engine.config import CheckpointParameters, LoopParameters
from vr_pipeline.engine.groups import Group
from vr_pipeline.engine.loop import Task, train
from vr_pipeline.engine.schedules import SCHEDULES
from vr_pipeline.engine.state import LogRows
from vr_pipeline.errors import PipelineError


class Killed(BaseException):
    """What a kill looks like from inside."""


class Line(Task):
    """Fits a line to numbers that the step's number determines; the first weight is trained by momentum."""

    description = "fit"
    identity = "line"
    metric = "closeness"

    def __init__(self, settings: LoopParameters, killed_in: int = 0, values: dict[int, float] | None = None) -> None:
        super().__init__(settings)
        self.weight = [torch.nn.Parameter(torch.tensor([float(at)])) for at in range(2)]
        self.killed_in, self.values = killed_in, values
        self.made: list[int] = []
        self.seen: dict[int, list[float]] = {}

    def weights(self) -> list[torch.nn.Parameter]:
        return self.weight

    def optimizers(self, weights: Sequence[torch.Tensor]) -> list[torch.optim.Optimizer]:
        rate = self.settings.learning_rate
        return [torch.optim.SGD(weights[:1], lr=2 * rate, momentum=0.9), torch.optim.AdamW(weights[1:], lr=rate)]

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if step == self.killed_in:
            raise Killed
        self.made.append(step)
        x = torch.rand(8, generator=torch.Generator().manual_seed(step))
        errors = (self.weight[0] + self.weight[1] * x - (3 - x)) ** 2
        errors.mean().backward()
        return errors.mean().detach(), {"error": errors.detach()}

    def samples(self, step: int) -> list[str]:
        return [f"number {at}" for at in range(8)]

    def validate(self, step: int, group: Group) -> float | None:
        self.seen[step] = self.numbers()
        return None if self.values is None else self.values[step]

    def numbers(self) -> list[float]:
        return [weight.item() for weight in self.weight]


def settings(**changes: object) -> LoopParameters:
    values = {"steps": 7, "learning_rate": 0.1, "warmup_steps": 2, "checkpoint_every": 2, "max_gradient_norm": 1e6}
    return LoopParameters.model_validate(values | changes)


def run(task: Line, checkpoint: Path | None = None, told: list[dict[str, float]] | None = None) -> LogRows:
    observe = None if told is None else lambda row: told.append(dict(row))
    return train(task, task.settings, group=Group(), checkpoint=checkpoint, observe=observe)


def test_each_optimiser_follows_the_schedule_at_its_own_peak() -> None:
    task = Line(settings(steps=1, warmup_steps=0, checkpoint_every=0))
    (row,) = run(task)
    assert row["learning_rate"] == 0.1
    first = Line(task.settings)
    first.step(1, Group())
    # SGD moves by rate times gradient, AdamW by the rate in its first step, and decays the weight by a hundredth of it.
    assert task.weight[0].item() == pytest.approx(-0.2 * first.weight[0].grad.item())
    assert task.weight[1].item() == pytest.approx(1 - 0.1 * np.sign(first.weight[1].grad.item()) - 0.001, abs=1e-6)
    assert row["gradient_norm"] == pytest.approx(np.hypot(*(weight.grad.item() for weight in first.weight)))


@pytest.mark.parametrize("changes", [{}, {"ema_decay": 0.5}, {"checkpoint_every": 1}], ids=str)
@pytest.mark.parametrize("killed_in", range(1, 8))
def test_a_kill_at_any_step_leaves_no_trace(killed_in: int, changes: dict[str, object], tmp_path: Path) -> None:
    values = {step: -abs(step - 4.0) for step in range(1, 8)}
    whole, told = Line(settings(**changes), values=values), []
    log = run(whole, told=told)
    file = tmp_path / "state.safetensors"
    with pytest.raises(Killed):
        run(Line(settings(**changes), killed_in, values), file)
    again, told_again = Line(settings(**changes), values=values), []
    assert run(again, file, told_again) == log
    assert again.numbers() == whole.numbers() == whole.seen[4]
    every = int(whole.settings.checkpoint_every)
    assert again.made == list(range((killed_in - 1) // every * every + 1, 8))
    # Whoever looks on can put the log together, those that come late too.
    for rows in (told, told_again):
        assert list({row["step"]: row for row in rows}.values()) == log
    finished = Line(settings(**changes), killed_in=1)
    assert run(finished, file) == log
    assert finished.numbers() == whole.numbers()


def test_without_a_validation_the_average_is_kept_else_the_last_weights() -> None:
    plain, averaged = Line(settings(warmup_steps=0)), Line(settings(warmup_steps=0, ema_decay=0.5))
    assert [row["loss"] for row in run(plain)] == [row["loss"] for row in run(averaged)]
    assert plain.numbers() == plain.seen[7] != averaged.numbers()
    assert averaged.numbers() == averaged.seen[7], "what is validated is the average"
    assert list(plain.seen) == [2, 4, 6, 7]


@pytest.mark.parametrize("killed_in", [None, 4, 5, 6, 7, 8])
@pytest.mark.parametrize(
    ("values", "last", "best"),
    [
        ([1, 3, 2, 3, 9, 9], 4, 2),  # a value that is only as good is no improvement
        ([1, 2, 1, 3, 2, 2, 9], 6, 4),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 12, 12),
    ],
)
def test_it_stops_when_validations_no_longer_improve(
    values: list[float], last: int, best: int, killed_in: int | None, tmp_path: Path
) -> None:
    options = {"steps": 12, "checkpoint_every": 1, "patience": 2}
    judged = {step: float(value) for step, value in enumerate(values, start=1)}
    whole = Line(settings(**options), values=judged)
    log = run(whole)
    assert whole.made == list(range(1, last + 1))
    assert whole.numbers() == whole.seen[best]
    if killed_in is not None and killed_in <= last:
        file = tmp_path / "state.safetensors"
        with pytest.raises(Killed):
            run(Line(settings(**options), killed_in, judged), file)
        again = Line(settings(**options), values=judged)
        assert run(again, file) == log
        assert again.made == list(range(killed_in, last + 1))
        assert again.numbers() == whole.numbers()
        finished = Line(settings(**options), values={})
        assert run(finished, file) == log
        assert finished.made == []


def test_a_kill_after_the_last_validation_trains_no_step_more(tmp_path: Path) -> None:
    judged = {1: 1.0, 2: 3.0, 3: 2.0, 4: 2.0}
    options = settings(steps=12, checkpoint_every=1, patience=2)
    file = tmp_path / "state.safetensors"
    task = Line(options, values=judged)

    def stop(row: Mapping[str, float]) -> None:
        if len(task.seen) == 4 and "closeness" in row:
            raise Killed

    with pytest.raises(Killed):
        train(task, options, group=Group(), checkpoint=file, observe=stop)
    again = Line(options, values=judged)
    log = run(again, file)
    assert again.made == []
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert again.numbers() == task.seen[2]


def test_what_else_a_validation_finds_stands_in_its_row() -> None:
    class Telling(Line):
        def figures(self) -> dict[str, float]:
            return {"found": 2.0 * len(self.seen)}

    log = run(Telling(settings(), values=dict.fromkeys(range(8), 1.0)))
    assert {row["step"]: row["found"] for row in log if "found" in row} == {2: 2.0, 4: 4.0, 6: 6.0, 7: 8.0}


def test_what_is_no_number_stops_before_it_reaches_a_weight_or_a_file(tmp_path: Path) -> None:
    class Overflowing(Line):
        def step(self, step: int, group: Group) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss, statistics = super().step(step, group)
            if step == 3:
                statistics["error"][5] = torch.inf
            return loss, statistics

    task = Overflowing(settings())
    with pytest.raises(PipelineError, match=r"loss is not finite at step 3 of fit, for number 5 .*rate \(0\.1\)"):
        run(task, tmp_path / "state")
    assert task.numbers() == task.seen[2]
    with pytest.raises(PipelineError, match="closeness of step 2 of fit is nan"):
        run(Line(settings(), values={2: float("nan")}))


def test_a_state_of_another_identity_is_left_alone(tmp_path: Path) -> None:
    file = CheckpointParameters(checkpoint_folder=str(tmp_path)).checkpoint_file("line")
    assert file is not None
    run(Line(settings()), file)
    other = Line(settings())
    other.identity = "another line"
    run(other, file)
    assert other.made == list(range(1, 8))


@pytest.mark.parametrize(("name", "last"), [("linear", 1 / 8), ("linear_to_zero", 0), ("cosine", 0), ("constant", 1)])
def test_schedules_rise_to_the_peak_and_end_as_they_say(name: str, last: float) -> None:
    rates = [SCHEDULES[name](3.0, step, 2, 10) for step in range(1, 11)]
    assert rates[:2] == [1.5, 3.0]
    assert rates == [*rates[:2], *sorted(rates[2:], reverse=True)]
    assert rates[-1] == pytest.approx(3.0 * last, abs=1e-9)


def test_a_cosine_over_all_steps_multiplies_the_warm_up() -> None:
    rates = [SCHEDULES["cosine_throughout"](1.0, step, 5, 10) for step in range(1, 11)]
    ramp = np.minimum(np.arange(1, 11) / 5, 1)
    np.testing.assert_allclose(rates, ramp * (1 + np.cos(np.pi * np.arange(1, 11) / 10)) / 2, atol=1e-12)


def test_the_learning_rate_rises_and_falls_linearly() -> None:
    linear = SCHEDULES["linear"]
    factors = [linear(1.0, step, 4, 10) for step in range(1, 11)]
    np.testing.assert_allclose(factors, [0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert linear(1.0, 1, 0, 5) == 1.0
    assert [linear(1.0, step, 2, 2) for step in (1, 2)] == [0.5, 1.0]
