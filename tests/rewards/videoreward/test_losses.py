"""Losses of reward models against independent formulas, finite differences and known limits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.rewards.videoreward.losses import LOSSES, Targets, bradley_terry_with_ties_loss, summed_loss


@settings(max_examples=60, deadline=None)
@given(st.floats(-30.0, 30.0), st.floats(1.001, 50.0))
def test_the_three_outcomes_of_a_pair_have_probability_one(difference: float, theta: float) -> None:
    value = torch.full((3,), difference, dtype=torch.float64)
    losses = bradley_terry_with_ties_loss(value, torch.tensor([1, 0, -1]), theta)
    assert torch.exp(-losses).sum().item() == pytest.approx(1.0, abs=1e-9)
    mirrored = bradley_terry_with_ties_loss(-value, torch.tensor([-1, 0, 1]), theta)
    assert torch.equal(losses, mirrored)


def test_bradley_terry_with_ties_at_its_known_points() -> None:
    """At d = 0 and theta 5 a tie has 2/3; a tie is likelier than a win below ln((theta^2 - 2) / theta) = 1.526."""
    zero = torch.zeros(3, dtype=torch.float64)
    shares = torch.exp(-bradley_terry_with_ties_loss(zero, torch.tensor([1, 0, -1])))
    assert shares.tolist() == pytest.approx([1 / 6, 2 / 3, 1 / 6])
    edge = math.log((5**2 - 2) / 5)
    at_edge = bradley_terry_with_ties_loss(torch.full((2,), edge, dtype=torch.float64), torch.tensor([1, 0]))
    assert at_edge[0].item() == pytest.approx(at_edge[1].item())
    theta = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    difference = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    label = torch.tensor([1, 0, -1])
    assert torch.autograd.gradcheck(lambda d, t: bradley_terry_with_ties_loss(d, label, t), (difference, theta))
    for wrong in (torch.tensor([2, 0, 0]), torch.tensor([1, 0])):
        with pytest.raises(ValueError, match=r"labels|shape"):
            bradley_terry_with_ties_loss(difference, wrong)
    with pytest.raises(ValueError, match="theta"):
        bradley_terry_with_ties_loss(difference, label, 1.0)


def made(seed: int = 0) -> tuple[torch.Tensor, Targets]:
    """Scores and targets of 6 pairs in 3 dimensions; a third is masked, and each kind of label is there."""
    random = np.random.default_rng(seed)
    label = random.choice([1.0, 0.0, -1.0, math.nan], size=(6, 3), p=[0.25, 0.25, 0.2, 0.3])
    grades = np.where(random.random((6, 2, 3)) < 0.7, random.integers(1, 6, (6, 2, 3)), math.nan)
    scores = torch.from_numpy(random.normal(0, 2, (6, 2, 3))).requires_grad_()
    return scores, Targets(torch.from_numpy(label), torch.from_numpy(grades))


def by_hand(loss: str, scores: np.ndarray, targets: Targets, theta: float, centre: float) -> tuple[float, int]:
    """The sum, label by label in plain Python, and how many labels are there."""
    total, count = 0.0, 0
    for pair, both in enumerate(scores):
        for dimension in range(3):
            first, second = (float(value) for value in both[:, dimension])
            label = float(targets.label[pair, dimension])
            if loss == "regression":
                for score, grade in zip((first, second), targets.grades[pair, :, dimension].tolist(), strict=True):
                    if not math.isnan(grade):
                        total, count = total + (score - grade + centre) ** 2, count + 1
            elif loss == "bt" and label in (1.0, -1.0):
                total, count = total + math.log(1 + math.exp(-label * (first - second))), count + 1
            elif loss == "btt" and not math.isnan(label):
                better, worse = math.exp(first), math.exp(second)
                chances = {
                    1.0: better / (better + theta * worse),
                    -1.0: worse / (worse + theta * better),
                    0.0: (theta**2 - 1) * better * worse / ((better + theta * worse) * (worse + theta * better)),
                }
                total, count = total - math.log(chances[label]), count + 1
    return total, count


@pytest.mark.parametrize("loss", LOSSES)
def test_sums_are_those_by_hand_and_masked_labels_leave_no_trace(loss: str) -> None:
    for seed in range(5):
        scores, targets = made(seed)
        expected, count = by_hand(loss, scores.detach().numpy(), targets, 3.0, 2.5)
        value = summed_loss(loss, scores, targets, theta=3.0, centre=2.5)
        assert value.item() == pytest.approx(expected, rel=1e-12)
        assert int(targets.present(loss).sum()) == count
        value.backward()
        gradient = scores.grad
        assert bool(gradient.isfinite().all())
        present = targets.present(loss)
        reached = present if loss == "regression" else present[:, None].expand(-1, 2, -1)
        assert torch.equal(gradient != 0, reached)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_differences(loss: str) -> None:
    scores, targets = made()
    theta = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda values, width: summed_loss(loss, values, targets, theta=width), (scores, theta)
    )


def test_exchanging_the_clips_of_a_pair_changes_nothing() -> None:
    scores, targets = made()
    turned = Targets(-targets.label, targets.grades.flip(1))
    for loss in LOSSES:
        torch.testing.assert_close(summed_loss(loss, scores, targets), summed_loss(loss, scores.flip(1), turned))


def test_nothing_but_masked_labels_is_zero() -> None:
    scores = torch.ones(2, 2, 1, requires_grad=True)
    masked = Targets(torch.full((2, 1), math.nan), torch.full((2, 2, 1), math.nan))
    for loss in LOSSES:
        value = summed_loss(loss, scores, masked)
        value.backward()
        assert value.item() == 0.0
        assert not masked.present(loss).any()
    assert not scores.grad.any()
