"""DPO by segment against an independent formula, finite differences and Diffusion-DPO; and in the trainer."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from toy_training import Toy, largest_difference, relative_difference, train
from vr_pipeline.errors import InputError
from vr_pipeline.generators.residuals import Residuals
from vr_pipeline.training.losses import diffusion_dpo_loss
from vr_pipeline.training.pairs import TrainingPair
from vr_pipeline.training.preference_trainer import training_identity
from vr_pipeline.training.segment_losses import segment_dpo_loss
from vr_pipeline.training.step import _frame_errors, collate, pair_loss

SEGMENTS = torch.tensor([[1, 1, -2, 0, 3], [-1, -1, -1, -1, -1], [0, 0, 0, 0, 0], [1, -1, 1, 0, 0]])


def errors(seed: int, pairs: int = 4, frames: int = 5) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(pairs, frames, generator=random, dtype=torch.float64) for _ in range(4)]


def expected(values: list[np.ndarray], segments: np.ndarray, beta: float) -> float:
    """Written with loops over pairs and segments."""
    winner, loser, winner_reference, loser_reference = values
    of_pairs = []
    for row, numbers in enumerate(segments):
        losses = []
        for number in set(numbers.tolist()) - {0}:
            at = numbers == number
            gap = (winner[row][at].mean() - winner_reference[row][at].mean()) - (
                loser[row][at].mean() - loser_reference[row][at].mean()
            )
            losses.append(np.logaddexp(0.0, beta / 2 * np.sign(number) * gap))
        if losses:
            of_pairs.append(np.mean(losses))
    return float(np.mean(of_pairs))


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_the_formula_and_its_gradient_that_of_finite_differences(seed: int) -> None:
    inputs = errors(seed)
    loss, statistics = segment_dpo_loss(*inputs, SEGMENTS, 7.0)
    assert loss.item() == pytest.approx(expected([value.numpy() for value in inputs], SEGMENTS.numpy(), 7.0), rel=1e-12)
    assert all(value.shape == (4,) and not value.requires_grad for value in statistics.values())
    assert statistics["logit"][2] == 0
    for value in inputs:
        value.requires_grad_()
    assert torch.autograd.gradcheck(lambda *values: segment_dpo_loss(*values, SEGMENTS, 7.0)[0], inputs)
    gradient = torch.autograd.grad(segment_dpo_loss(*inputs, SEGMENTS, 7.0)[0], inputs[0])[0]
    assert torch.equal(gradient.sign(), SEGMENTS.sign().double()), "only labelled frames learn, each its way"


def test_one_segment_of_all_frames_is_diffusion_dpo() -> None:
    inputs = errors(9)
    whole, statistics = diffusion_dpo_loss(*(value.mean(dim=1) for value in inputs), 5.0)
    loss, own = segment_dpo_loss(*inputs, torch.ones(4, 5, dtype=torch.long), 5.0)
    torch.testing.assert_close(loss, whole)
    for name, values in own.items():
        torch.testing.assert_close(values, statistics[name])
    # A label the other way round is the pair the other way round.
    swapped = segment_dpo_loss(*(inputs[at] for at in (1, 0, 3, 2)), -torch.ones(4, 5, dtype=torch.long), 5.0)[0]
    torch.testing.assert_close(swapped, whole)


def test_pairs_without_a_label_count_nothing_and_shapes_are_checked() -> None:
    inputs = errors(3)
    alone = segment_dpo_loss(*(value[:2] for value in inputs), SEGMENTS[:2], 7.0)[0]
    torch.testing.assert_close(segment_dpo_loss(*(value[:3] for value in inputs), SEGMENTS[:3], 7.0)[0], alone)
    assert segment_dpo_loss(*inputs, torch.zeros(4, 5, dtype=torch.long), 7.0)[0].item() == 0
    with pytest.raises(ValueError, match=r"one shape \[pairs, frames\]"):
        segment_dpo_loss(*inputs, SEGMENTS[:, :4], 7.0)


def labelled(toy: Toy, *cells: str) -> list[TrainingPair]:
    return [replace(pair, segments=cells[row % len(cells)]) for row, pair in enumerate(toy.pairs)]


@pytest.mark.parametrize("mu", [None, 0.6])
def test_the_trainers_loss_is_the_formula_whole_and_in_parts(toy: Toy, mu: float | None) -> None:
    generator = toy.generator()
    for value in generator.add_adapter(rank=2, alpha=4.0, targets=None, seed=0):
        value.data += 0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(0))
    changes: dict[str, object] = {"loss": "segment_dpo", "safeguard": {"sdpo_mu": mu}}
    pairs = labelled(toy, "a,b", "b:1,a:3", "a,tie")
    batch = collate(generator, [(pair, 0) for pair in pairs], toy.data, toy.parameters(**changes))
    assert batch.segments is not None
    assert batch.segments[0].unique().tolist() == [-2, 1]
    with torch.no_grad():
        arguments = (batch.latents, batch.noise, batch.timesteps, batch.condition)
        policy = generator.residuals(*arguments)
        with generator.reference():
            original = generator.residuals(*arguments)
        loss, _ = pair_loss(generator, batch, toy.parameters(**changes))
    sides = [*policy.frame_error().chunk(2), *original.frame_error().chunk(2)]
    wanted = expected([side.double().numpy() for side in sides], batch.segments.numpy(), 10.0)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)
    whole, log = train(toy, pairs=pairs, **changes)
    parts, again = train(toy, pairs=pairs, micro_batch_size=1, **changes)
    assert relative_difference(whole, parts) < 1e-4
    np.testing.assert_allclose(again["loss"], log["loss"], rtol=1e-4)
    assert log["loss"].iloc[0] == pytest.approx(math.log(2), rel=1e-6)
    assert ("sdpo_scale" in log) == (mu is not None)


def test_one_segment_trains_as_diffusion_dpo_does_also_with_its_safeguard(toy: Toy) -> None:
    changes: dict[str, object] = {"loss": "segment_dpo", "steps": 3}
    one, _ = train(toy, pairs=labelled(toy, "a"), **changes)
    other, _ = train(toy, steps=3)
    assert relative_difference(one, other) < 1e-4
    turned, _ = train(toy, pairs=labelled(toy, "b"), **changes)
    assert relative_difference(turned, other) > 1e-3


def test_a_step_with_the_safeguard_keeps_the_descent_of_the_better_frames() -> None:
    """In the space of predictions, where the gradients of errors are residuals."""
    random = torch.Generator().manual_seed(0)
    prediction = torch.randn(4, 6, 3, generator=random).requires_grad_()
    policy = Residuals(prediction, prediction.detach() + 1 + torch.rand(4, 6, 3, generator=random), frame_axis=1)
    segments = torch.tensor([[1, 1, -2, -2, 3, 3]] * 2)
    named, more = _frame_errors(policy, segments, 0.6)
    sign = segments.sign()
    gap = (sign * (named["winner_frame_error"] - named["loser_frame_error"])).sum()
    winner, loser = torch.autograd.grad(gap, prediction)[0].chunk(2)
    better = torch.where(segments[..., None] > 0, winner, loser)
    worse = torch.where(segments[..., None] > 0, loser, winner)
    # One network moves both: what the worse clip takes from the better one is their inner product.
    kept = (better * (better + worse)).sum(dim=2) / (better * better).sum(dim=2)
    assert kept.min().item() >= 0.6 - 1e-5
    assert ((more["sdpo_scale"] > 0) & (more["sdpo_scale"] < 1)).all()


def test_pairs_need_a_labelled_segment(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    for pairs in (toy.pairs, labelled(toy, "tie,tie", "")):
        with pytest.raises(InputError, match="none of 6 pairs has a labelled segment") as caught:
            train(toy, pairs=pairs, loss="segment_dpo")
        assert caught.value.field == "training.loss"
    with caplog.at_level(logging.WARNING):
        some, _ = train(toy, pairs=labelled(toy, "a,b", "tie"), loss="segment_dpo", steps=2)
    assert "3 of 6 pairs are left out" in caplog.text
    alone, _ = train(toy, pairs=labelled(toy, "a,b", "tie")[::2], loss="segment_dpo", steps=2)
    assert largest_difference(some, alone) == 0
    with pytest.raises(ValidationError, match="needs full predictions"):
        toy.parameters(loss="segment_dpo", reference_draws=1)


def test_other_labels_are_another_training(toy: Toy) -> None:
    generator = toy.generator()

    def identity(loss: str, *cells: str) -> str:
        data = replace(toy.data, pairs=labelled(toy, *cells))
        return training_identity(generator, data, toy.parameters(loss=loss))

    assert identity("segment_dpo", "a,b") != identity("segment_dpo", "b,a")
    assert identity("diffusion_dpo", "a,b") == identity("diffusion_dpo", "b,a")
