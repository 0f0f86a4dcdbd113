"""Rows of the training log, and the rules that stop a training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from toy_training import Toy
from vr_pipeline.errors import PipelineError
from vr_pipeline.training.health import check_collapse, check_finite, check_weights, log_row, warn_of_both_errors


def test_a_row_holds_means_over_the_pairs_and_quantiles_of_the_logit() -> None:
    random = np.random.default_rng(0)
    logit, change = random.normal(size=(2, 11))
    statistics = {"logit": torch.tensor(logit), "winner_change": torch.tensor(change)}
    row = log_row(7, torch.tensor(0.5), statistics, torch.tensor(3.0), 1e-4)
    # Of eleven sorted values the second, the sixth and the tenth.
    low, middle, high = np.sort(logit)[[1, 5, 9]]
    assert row == pytest.approx(
        {
            "step": 7,
            "loss": 0.5,
            "gradient_norm": 3.0,
            "learning_rate": 1e-4,
            "logit_p10": low,
            "logit_p50": middle,
            "logit_p90": high,
            "winner_change": change.mean(),
        }
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_stops_and_names_step_pair_and_what_to_change(value: float) -> None:
    parameters, pairs = Toy.parameters(), ["a", "b", "c"]
    check_finite("loss", {"loss": torch.tensor(1e30), "error": torch.zeros(3)}, pairs, 3, parameters, "toy")
    with pytest.raises(PipelineError, match="The gradient is not finite at step 3 of toy, for the pairs 'a', 'b', 'c'"):
        check_finite("gradient", {"gradient": torch.tensor(value)}, pairs, 3, parameters, "toy")
    # A number that the loss hides: the sigmoid of an infinite term is 0 or 1.
    values = {"loss": torch.tensor(0.0), "winner_error": torch.tensor([1.0, value, 1.0]), "logit": torch.zeros(3)}
    with pytest.raises(PipelineError, match=rf"for the pair 'b' \(winner_error {value}\)\. Lower the learning rate"):
        check_finite("loss", values, pairs, 3, parameters, "toy")
    with pytest.raises(PipelineError, match="No weight has been changed yet: the model itself gives no numbers"):
        check_finite("loss", values, pairs, 1, parameters, "toy")
    with pytest.raises(PipelineError, match="'0', '1', '2' and 2 more"):
        check_finite("loss", {"loss": torch.tensor(value)}, list("01234"), 2, parameters, "toy")


def test_weights_that_are_no_numbers_stop() -> None:
    weights = [torch.zeros(2), torch.zeros(3)]
    check_weights(weights, 4, Toy.parameters(), "toy")
    weights[1][2] = math.inf
    with pytest.raises(PipelineError, match="not finite after step 4 of toy"):
        check_weights(weights, 4, Toy.parameters(), "toy")


@pytest.mark.parametrize(("winners", "losers", "warned"), [(0.1, 0.2, True), (-0.1, 0.2, False), (0.1, -0.2, False)])
def test_both_errors_rising_is_said_once_at_the_end(
    winners: float, losers: float, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    fine = {"winner_change": -1.0, "loser_change": 1.0}
    rows = [fine] * 9 + [{"winner_change": winners, "loser_change": losers}]
    warn_of_both_errors(rows, "toy")
    assert ("both errors have risen" in caplog.text) is warned
    caplog.clear()
    warn_of_both_errors([fine, *rows[9:], *[fine] * 10], "toy")
    warn_of_both_errors([{"loss": 1.0}], "toy")
    warn_of_both_errors([], "toy")
    assert not caplog.text


def test_collapse_stops_and_can_be_ignored() -> None:
    rows = [{"step": float(step), "loss": 1e-4, "winner_change": 0.2} for step in range(1, 26)]
    parameters = Toy.parameters()
    with pytest.raises(PipelineError, match=r"collapsed at step 25 of toy: the loss is 0\.0001 .*\(by 0\.2\)"):
        check_collapse(rows, parameters, "toy")
    check_collapse(rows[:-1], parameters, "toy")
    check_collapse(rows, Toy.parameters(collapse_loss=0), "toy")
    healthy = [row | {"winner_change": -0.2} for row in rows]
    check_collapse(healthy, parameters, "toy")
    early = [row | {"loss": 0.5} for row in rows]
    check_collapse(early, parameters, "toy")
    # Only the last steps count.
    with pytest.raises(PipelineError, match="collapsed"):
        check_collapse(early + rows, parameters, "toy")
    check_collapse(rows + early, parameters, "toy")


def test_losses_without_a_reference_cannot_collapse_this_way() -> None:
    check_collapse([{"step": float(step), "loss": 1e-4} for step in range(1, 40)], Toy.parameters(loss="mapo"), "toy")
