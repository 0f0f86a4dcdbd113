"""The optimiser, its learning rate, and the running average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vr_pipeline.engine.config import LoopParameters
from vr_pipeline.engine.schedules import SCHEDULES
from vr_pipeline.engine.sharding import whole
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
    """Return AdamW, with its state in 32 or 8 bits.

    Raises:
        InputError: 8 bits need bitsandbytes, which is not installed.
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
    """Clip gradients to a norm, and return their previous norm."""
    import torch

    return whole(torch.nn.utils.clip_grad_norm_(weights, largest))


class AveragedWeights:
    """Exponential moving average of weights.

    The decay rises over the first steps, min(decay, (1 + step) / (10 + step)), so that the average does not stay near
    the initial weights. ``EMAModel`` of diffusers counts steps and rounds differently, so it would not reproduce the
    shipped weights, and does not support sharded weights.

    Args:
        weights: the trained parameters.
        decay: share of the old average in the new one.
    """

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        self.weights, self.decay = weights, decay
        self.average = [weight.detach().clone() for weight in weights]

    def update(self, step: int) -> None:
        """Update the average after a step."""
        import torch

        share = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            for average, weight in zip(self.average, self.weights, strict=True):
                average.lerp_(weight, share)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Use the average as the network's weights within the context."""
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
