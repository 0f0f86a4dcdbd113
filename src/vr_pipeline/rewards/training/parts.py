"""The trained weights of a vision-language model: vision, language model, output embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.engine.fine_tuning import FineTuning
from vr_pipeline.vlm.families.base import Family

if TYPE_CHECKING:
    import torch


class ModelParts:
    """Prepares a model for training, and restores its form and precision afterwards.

    Args:
        family: its model is changed in place.
        vision: train all before the language model (tower, merger, projector) fully or not.
        language: train the language model by LoRA, fully, or not.
        lora: settings of LoRA.
        head: whether a full training of the language model includes the output embeddings.
    """

    def __init__(
        self,
        family: Family,
        vision: Literal["full", "frozen"],
        language: Literal["lora", "full", "frozen"],
        lora: LoRAParameters,
        *,
        head: bool,
    ) -> None:
        model, language_model = family.model, family.language_model
        self.model = model
        of_language = {id(weight) for weight in language_model.parameters()}
        of_head = [one for one in model.get_output_embeddings().parameters() if id(one) not in of_language]
        model.requires_grad_(False)
        self.tunings: list[FineTuning] = []
        if language != "frozen":
            self.tunings.append(FineTuning(language_model, lora if language == "lora" else None, family.lora_targets))
        self.others: list[torch.nn.Parameter] = []
        if vision == "full":
            known = of_language | {id(weight) for weight in of_head}
            self.others = [
                weight for name, weight in model.named_parameters() if id(weight) not in known and "lora_" not in name
            ]
        if head and language == "full":
            self.others += of_head
        self._dtypes = [weight.dtype for weight in self.others]
        for weight in self.others:
            weight.requires_grad_(True)
            weight.data = weight.data.float()

    def weights(self) -> list[torch.nn.Parameter]:
        """Return the trained weights in a fixed order."""
        return [weight for tuning in self.tunings for weight in tuning.weights()] + self.others

    def finish(self) -> None:
        """Merge LoRA, and restore the precision."""
        for tuning in self.tunings:
            tuning.finish()
        for weight, dtype in zip(self.others, self._dtypes, strict=True):
            weight.data = weight.data.to(dtype)
        self.model.requires_grad_(False)
