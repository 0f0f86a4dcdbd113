"""The optimiser, its learning rate, and the running average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.schedules import SCHEDULES
from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def learning_rate(step: int, settings: LoopParameters) -> float:
    """Return the learning rate of a step, counted from 1."""
    return SCHEDULES[settings.schedule](settings.learning_rate, step, settings.warmup_steps, settings.steps)


def make_optimizer(
    weights: Sequence[Tensor], settings: LoopParameters, *, eight_bit: bool = False
) -> torch.optim.Optimizer:
    """Make AdamW, with its state in 32 or in 8 bits.

    Raises:
        InputError: if 8 bits are asked for and bitsandbytes is not there.
    """
    import torch

    options: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": (0.9, settings.beta2),
        "weight_decay": settings.weight_decay,
    }
    if not eight_bit:
        return torch.optim.AdamW(weights, fused=True, **options)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise InputError(
            "the optimiser adamw_8bit needs the package bitsandbytes, which is not installed",
            field="training.optimizer",
            remedy='install it with: pip install -c constraints.txt -e ".[gpu]", or set optimizer: adamw',
        ) from error
    return AdamW8bit(weights, **options)  # type: ignore[no-any-return]


def clip_gradients(weights: Sequence[Tensor], largest: float) -> Tensor:
    """Scale gradients down to a norm, and return the norm they had."""
    import torch

    from vr_pipeline.engine.sharding import whole

    return whole(torch.nn.utils.clip_grad_norm_(weights, largest))


class AveragedWeights:
    """Exponential moving average of weights.

    The decay rises over the first steps, min(decay, (1 + step) / (10 + step)), so that the average does not stay near
    where the training started. ``EMAModel`` of diffusers counts its steps otherwise and rounds otherwise, so that
    shipped weights would not come out again, and does not know weights that are spread over processes.

    Args:
        weights: the parameters that are trained.
        decay: share of the old average that is kept at every step.
    """

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        self.weights, self.decay = weights, decay
        self.average = [weight.detach().clone() for weight in weights]

    def update(self, step: int) -> None:
        """Take in the weights after a step."""
        import torch

        share = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            for average, weight in zip(self.average, self.weights, strict=True):
                average.lerp_(weight, share)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Within this context the network computes with the average."""
        self.exchange()
        try:
            yield
        finally:
            self.exchange()

    def exchange(self) -> None:
        """Swap the weights and their average."""
        import torch

        with torch.no_grad():
            for average, weight in zip(self.average, self.weights, strict=True):
                kept = weight.detach().clone()
                weight.copy_(average)
                average.copy_(kept)
