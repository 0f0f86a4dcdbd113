"""Training of an adapter that starts with another one, as the rounds of online training do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig

    from vr_pipeline.generators.policy import Start


def load_start(generator: Any, start: Start, wanted: LoraConfig) -> None:
    """Load the adapter of a start, and make its weights the only trainable ones.

    Args:
        generator: a :class:`~vr_pipeline.generators.contract.Generator`, which receives it.
        start: the adapter.
        wanted: the configuration of the training's adapter.

    Raises:
        InputError: the adapter has others.
    """
    asked = {"r": wanted.r, "lora_alpha": wanted.lora_alpha, "target_modules": sorted(wanted.target_modules or ())}
    if differing := [name for name, value in asked.items() if start.adapter.config[name] != value]:
        raise InputError(
            f"a training starts with an adapter whose {' and '.join(differing)} differ from the settings",
            field="training.lora",
            remedy="keep rank, alpha and targets the same in all rounds",
        )
    generator.load_policy(start.adapter)
    for name, value in generator.denoiser.named_parameters():
        value.requires_grad_(".lora_" in name)


def reference_of(start: Start | None, weights: Sequence[torch.Tensor]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the trained weights with their values in a reference that is renewed; nothing for the original."""
    return [(weight, weight.data.clone()) for weight in weights] if start is not None and start.renewed else []


@contextlib.contextmanager
def holding(values: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """Give weights other values within a block, each pair being a weight and its value."""
    own = [weight.data for weight, _ in values]
    for weight, value in values:
        weight.data = value
    try:
        yield
    finally:
        for (weight, _), value in zip(values, own, strict=True):
            weight.data = value
