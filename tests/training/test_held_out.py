"""Held-out pairs measure a training and change nothing of it."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from tests.support.toy_training import Toy

from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.held_out import HeldOutPairs, held_out_accuracy
from vr_pipeline.training.pairs import PairData
from vr_pipeline.training.policies import train_policy_on_pairs


@pytest.fixture(scope="module")
def halves(toy: Toy) -> tuple[PairData, PairData]:
    """Pairs to train on, and pairs to measure by."""
    return tuple(PairData(toy.pairs[start::2], toy.latents, toy.conditions) for start in (0, 1))  # type: ignore[return-value]


def trained(
    toy: Toy, data: PairData, held_out: HeldOutPairs | None, **changes: object
) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    parameters = DpoTrainingParameters(training=toy.parameters(checkpoint_every=3, **changes))
    policy, log = train_policy_on_pairs(data, toy.settings, parameters, validation=held_out)
    return dict(policy.tensors), log


def test_the_accuracy_is_in_the_log_and_the_policy_is_that_of_the_last_step(
    toy: Toy, halves: tuple[PairData, PairData]
) -> None:
    data, others = halves
    parameters = DpoTrainingParameters(training=toy.parameters(), held_out_pairs=2, held_out_draws=2)
    held_out = HeldOutPairs(others, parameters)
    plain, _ = trained(toy, data, None)
    measured, log = trained(toy, data, held_out)
    assert all(torch.equal(plain[name], measured[name]) for name in plain)
    assert log.dropna(subset="held_out_accuracy")["step"].tolist() == [3, 6]
    assert log["held_out_accuracy"].dropna().isin([0.0, 0.25, 0.5, 0.75, 1.0]).all()


def test_the_reference_orders_nothing_and_what_was_learned_is_ordered(toy: Toy) -> None:
    generator = toy.generator()
    parameters = toy.parameters()
    generator.add_adapter(rank=2, alpha=4.0, targets=None, seed=0)
    assert held_out_accuracy(generator, toy.data, parameters, draws=1) == 0.5
    learned = DpoTrainingParameters(training=toy.parameters(steps=30))
    policy, _ = train_policy_on_pairs(toy.data, toy.settings, learned)
    generator.load_policy(policy)
    assert (held_out_accuracy(generator, toy.data, parameters, draws=4) or 0.0) > 0.6


def test_nothing_is_measured_without_pairs_or_without_a_reference(toy: Toy) -> None:
    generator = toy.generator()
    assert held_out_accuracy(generator, PairData([], {}, {}), toy.parameters(), draws=1) is None
    full = toy.parameters(method="full", loss="supervised", beta=500.0)
    assert held_out_accuracy(generator, toy.data, full, draws=1) is None
