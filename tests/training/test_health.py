"""Rows of the training log, and the rules that stop a training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from toy_training import Toy
from vr_pipeline.errors import PipelineError
from vr_pipeline.training.health import check_collapse, check_finite, log_row


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
def test_what_is_no_number_stops(value: float) -> None:
    parameters = Toy.parameters()
    check_finite("loss", torch.tensor(1e30), 3, parameters, "toy")
    with pytest.raises(PipelineError, match="The gradient is not finite at step 3 of toy"):
        check_finite("gradient", torch.tensor(value), 3, parameters, "toy")


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
