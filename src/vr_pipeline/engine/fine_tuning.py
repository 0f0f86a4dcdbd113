"""Fine-tuning of a model: all weights, or a low-rank update of some, in float32 during training."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vr_pipeline.engine.config import LoRAParameters

if TYPE_CHECKING:
    import torch


class FineTuning:
    """Prepares a model for training, and restores its form and precision afterwards.

    Small steps would be lost in the rounding of bfloat16, so trained weights are float32.

    Args:
        model: changed in place.
        lora: a low-rank update; None trains every weight.
        target_modules: layers with the update, unless ``lora`` names them.
    """

    def __init__(self, model: torch.nn.Module, lora: LoRAParameters | None, target_modules: Sequence[str]) -> None:
        import torch

        self.model, self.lora = model, lora
        model.requires_grad_(lora is None)
        if lora is not None:
            from peft import LoraConfig, inject_adapter_in_model

            config = LoraConfig(
                r=lora.rank,
                lora_alpha=lora.alpha,  # type: ignore[arg-type]
                lora_dropout=lora.dropout,
                target_modules=lora.target_modules or list(target_modules),
            )
            # Injected in place, so that the names of submodules remain.
            inject_adapter_in_model(config, model)
        self._dtypes = {name: weight.dtype for name, weight in model.named_parameters()}
        for weight in self.weights():
            if weight.dtype != torch.float32:
                weight.data = weight.data.float()

    def weights(self) -> list[torch.nn.Parameter]:
        """Return the trained parameters, in a fixed order."""
        return [weight for weight in self.model.parameters() if weight.requires_grad]

    def finish(self) -> None:
        """Merge every low-rank update into its weight, remove the adapter, and restore the precision."""
        if self.lora is not None:
            _merge(self.model)
        for name, weight in self.model.named_parameters():
            weight.data = weight.data.to(self._dtypes.get(name, weight.dtype))


def _merge(model: torch.nn.Module) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent) if parent else model, attribute, copy.copy(module.get_base_layer()))
