"""Rows of the training log, and the rules that stop any training."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vr_pipeline.engine.health import check_finite, check_weights, log_row
from vr_pipeline.errors import PipelineError


def test_a_row_holds_means_over_the_samples_and_quantiles_of_the_logit() -> None:
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
def test_what_is_no_number_stops_and_names_step_sample_and_what_to_change(value: float) -> None:
    def check(what: str, values: dict[str, torch.Tensor], step: int = 3, samples: str = "abc") -> None:
        check_finite(what, values, step, samples=lambda _: list(samples), description="toy", remedy="Lower the rate")

    check("loss", {"loss": torch.tensor(1e30), "error": torch.zeros(3)})
    with pytest.raises(
        PipelineError, match=r"The gradient is not finite at step 3 of toy, for a, b, c\. Lower the rate"
    ):
        check("gradient", {"gradient": torch.tensor(value)})
    with pytest.raises(PipelineError, match=r"The loss is not finite at step 3 of toy\. Lower the rate"):
        check("loss", {"loss": torch.tensor(value)}, samples="")
    # A number that the loss hides: the sigmoid of an infinite term is 0 or 1.
    values = {"loss": torch.tensor(0.0), "winner_error": torch.tensor([1.0, value, 1.0]), "logit": torch.zeros(3)}
    with pytest.raises(PipelineError, match=rf"for b \(winner_error {value}\)\. Lower the rate"):
        check("loss", values)
    with pytest.raises(PipelineError, match="No weight has been changed yet: the model returns NaN"):
        check("loss", values, step=1)
    with pytest.raises(PipelineError, match="0, 1, 2 and 2 more"):
        check("loss", {"loss": torch.tensor(value)}, samples="01234")


def test_weights_that_are_no_numbers_stop() -> None:
    weights = [torch.zeros(2), torch.zeros(3)]
    check_weights(weights, 4, description="toy", remedy="Lower the rate")
    weights[1][2] = math.inf
    with pytest.raises(PipelineError, match=r"not finite after step 4 of toy\. Lower the rate; an earlier checkpoint"):
        check_weights(weights, 4, description="toy", remedy="Lower the rate")
