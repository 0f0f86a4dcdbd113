"""The loss of DPO against its formula, number by number."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.understanding.losses import dpo_losses, margins

log_probability = st.floats(-60, 0, allow_nan=False)
quadruple = st.tuples(*[log_probability] * 4)


@given(pairs=st.lists(quadruple, min_size=1, max_size=5), beta=st.floats(0.01, 2))
def test_loss_and_gradient_are_those_of_the_formula(pairs: list[tuple[float, ...]], beta: float) -> None:
    policy = torch.tensor([pair[:2] for pair in pairs], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([pair[2:] for pair in pairs], dtype=torch.float64)
    losses = dpo_losses(policy, reference, beta)
    losses.sum().backward()
    for row, (w, l, ref_w, ref_l) in enumerate(pairs):  # noqa: E741
        margin = beta * ((w - ref_w) - (l - ref_l))
        # -log sigmoid(x), without overflow: log(1 + exp(-|x|)) + max(-x, 0).
        expected = math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)
        assert math.isclose(float(losses[row].detach()), expected, rel_tol=1e-9, abs_tol=1e-12)
        weight = beta * (1 / (1 + math.exp(margin)) if margin < 500 else 0.0)
        np.testing.assert_allclose(policy.grad[row].numpy(), [-weight, weight], rtol=1e-9, atol=1e-12)


def test_where_policy_and_reference_agree_the_loss_is_log_two() -> None:
    same = torch.tensor([[-3.0, -5.0], [-1.0, -0.5]])
    assert torch.allclose(dpo_losses(same, same, 0.1), torch.full((2,), math.log(2)))
    assert torch.equal(margins(same, same, 0.1), torch.zeros(2))
