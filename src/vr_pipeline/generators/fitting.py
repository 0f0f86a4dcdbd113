"""Taking a policy's weights out of a denoiser, and putting them into one: all of them, each in its place, or none.

The libraries pass over weights of an adapter that fit nowhere, and leave missing ones at their initial values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError
from vr_pipeline.generators.policy import Adapter, FullWeights
from vr_pipeline.storage.models import reason_in_short

if TYPE_CHECKING:
    import torch


def misfit(problem: str) -> InputError:
    """Return what to raise where a policy does not fit a generator."""
    return InputError(
        f"the policy does not fit this model: {problem}",
        remedy="train the policy again on this model, or copy the whole folder of the policy",
        field="generator.path",
    )


def adapter_of(denoisers: Mapping[str, Any], base: str) -> Adapter:
    """Return a copy of the low-rank adapter of a pipeline's denoisers, of which there is usually one.

    Args:
        denoisers: by the names that the pipeline gives them, with one adapter each.
        base: identity of the weights that the adapter was trained on.
    """
    from peft.utils import get_peft_model_state_dict

    tensors: dict[str, torch.Tensor] = {}
    for component, denoiser in denoisers.items():
        name, config = next(iter(denoiser.peft_config.items()))
        state = get_peft_model_state_dict(denoiser, adapter_name=name)
        tensors |= {f"{component}.{key}": state[key].detach().float().cpu().clone() for key in sorted(state)}
    return Adapter(
        tensors=tensors,
        config={"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": sorted(config.target_modules)},
        base=base,
    )


def full_weights_of(denoiser: Any, component: str, base: str, kept_as: Mapping[str, torch.dtype]) -> FullWeights:
    """Return a copy of all weights of a denoiser, also of one that is spread over several processes.

    Args:
        denoiser: the network.
        component: what the pipeline calls it.
        base: identity of the weights that training began with.
        kept_as: precision of each weight in the copy; a weight that is not named keeps its own.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, value in sorted(denoiser.state_dict().items()):
        whole = value.full_tensor() if hasattr(value, "full_tensor") else value
        tensors[name] = whole.detach().to("cpu", kept_as.get(name, whole.dtype), copy=True)
    config = {name: value for name, value in denoiser.config.items() if name != "_name_or_path"}
    return FullWeights(tensors, config, component, base)


def load_adapter(denoisers: Mapping[str, Any], adapter: Adapter) -> None:
    """Put an adapter into a pipeline's denoisers, which have none.

    Raises:
        InputError: the adapter's weights are not those of the layers that its configuration names.
    """
    if foreign := sorted(set(adapter.components) - denoisers.keys()):
        raise misfit(f"its weights '{min(adapter.tensors)}' and those of '{foreign[0]}' belong to different parts")
    try:
        for component, denoiser in denoisers.items():
            _load_part(denoiser, component, adapter)
    except InputError:
        for denoiser in denoisers.values():
            remove_adapters(denoiser)
        raise


def _load_part(denoiser: Any, component: str, adapter: Adapter) -> None:
    from peft.utils import get_peft_model_state_dict

    prefix = f"{component}."
    tensors = {name: value for name, value in adapter.tensors.items() if name.startswith(prefix)}
    # The library takes the layers from the weights, whatever the configuration says.
    targets = adapter.config["target_modules"]
    layers = {name for name, _ in denoiser.named_modules() if any(f".{name}".endswith(f".{one}") for one in targets)}
    given = {name.removeprefix(prefix).rpartition(".lora_")[0] for name in tensors}
    if odd := sorted(layers ^ given):
        lacking = "its weights lack" if odd[0] in layers else "its weights have, and its targets or the model lack,"
        raise misfit(f"{lacking} the layer '{odd[0]}'")
    try:
        denoiser.load_lora_adapter(
            dict(tensors),
            prefix=component,
            metadata={f"{prefix}{name}": value for name, value in adapter.config.items()},
        )
        name = next(iter(denoiser.peft_config))
        wanted = {
            f"{prefix}{key}": value for key, value in get_peft_model_state_dict(denoiser, adapter_name=name).items()
        }
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise misfit(reason_in_short(error)) from error
    if problem := _difference(tensors, wanted):
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


def remove_adapters(denoiser: Any) -> None:
    """Take the adapter, if there is one, out of a denoiser."""
    if getattr(denoiser, "peft_config", None):
        denoiser.unload_lora()
