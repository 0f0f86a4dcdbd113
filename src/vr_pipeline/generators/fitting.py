"""Putting a policy's weights into a denoiser: all of them, each in its place, or none.

The libraries pass over weights of an adapter that fit nowhere, and leave those that are missing as they were begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError
from vr_pipeline.storage.models import reason_in_short

if TYPE_CHECKING:
    import torch

    from vr_pipeline.generators.policy import Adapter, FullWeights


def misfit(problem: str) -> InputError:
    """Return what to raise where a policy does not fit a generator."""
    return InputError(
        f"the policy does not fit this model: {problem}",
        remedy="train the policy again on this model, or copy the whole folder of the policy",
        field="generator.path",
    )


def load_adapter(denoiser: Any, adapter: Adapter) -> None:
    """Put an adapter into a denoiser that has none.

    Raises:
        InputError: the adapter's weights are not those of the layers that its configuration names.
    """
    from peft.utils import get_peft_model_state_dict

    prefix = f"{adapter.component}."
    if foreign := [name for name in adapter.tensors if not name.startswith(prefix)]:
        raise misfit(f"its weights '{min(adapter.tensors)}' and '{min(foreign)}' belong to different parts")
    # The library takes the layers from the weights, whatever the configuration says.
    targets = adapter.config["target_modules"]
    layers = {name for name, _ in denoiser.named_modules() if any(f".{name}".endswith(f".{one}") for one in targets)}
    given = {name.removeprefix(prefix).rpartition(".lora_")[0] for name in adapter.tensors}
    if odd := sorted(layers ^ given):
        lacking = "its weights lack" if odd[0] in layers else "its weights have, and its targets or the model lack,"
        raise misfit(f"{lacking} the layer '{odd[0]}'")
    try:
        denoiser.load_lora_adapter(
            dict(adapter.tensors),
            prefix=adapter.component,
            metadata={f"{prefix}{name}": value for name, value in adapter.config.items()},
        )
        name = next(iter(denoiser.peft_config))
        wanted = {
            f"{prefix}{key}": value for key, value in get_peft_model_state_dict(denoiser, adapter_name=name).items()
        }
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        _remove_adapters(denoiser)
        raise misfit(reason_in_short(error)) from error
    if problem := _difference(adapter.tensors, wanted):
        _remove_adapters(denoiser)
        raise misfit(problem)


def load_full_weights(denoiser: torch.nn.Module, weights: FullWeights) -> None:
    """Replace all weights of a denoiser.

    Raises:
        InputError: they are not those of this denoiser.
    """
    if problem := _difference(weights.tensors, denoiser.state_dict()):
        raise misfit(problem)
    denoiser.load_state_dict(weights.tensors)


def _difference(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """Return what is wrong with weights that are given; empty if nothing is."""
    for names, what in ((wanted.keys() - given.keys(), "missing"), (given.keys() - wanted.keys(), "unknown")):
        if names:
            return f"{len(names)} of its weights are {what}, such as '{min(names)}'"
    for name, value in sorted(given.items()):
        if value.shape != wanted[name].shape:
            return f"the weight '{name}' is of shape {list(value.shape)} instead of {list(wanted[name].shape)}"
    return ""


def _remove_adapters(denoiser: Any) -> None:
    if getattr(denoiser, "peft_config", None):
        denoiser.unload_lora()
