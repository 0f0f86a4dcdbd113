"""A vision-language model trained by DPO: an adapter in PEFT's format, or the whole model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.errors import InputError
from vr_pipeline.storage.atomic import damaged_file, write_checksums
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.vlm.families.base import Family

if TYPE_CHECKING:
    import torch

RECORD = "vlm_dpo.json"
"""File in a policy's folder with its type, data and settings."""
_WEIGHTS, _CONFIG, _NAME = "adapter_model.safetensors", "adapter_config.json", "default"
_REMEDY = "Run the pipeline vlm_dpo, or copy the whole folder"


@dataclass(frozen=True)
class TrainedAdapter:
    """A LoRA adapter of a language model, with names of the whole transformers class.

    Attributes:
        tensors: weights by PEFT's names.
        config: content of adapter_config.json.
    """

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]

    @classmethod
    def of(cls, family: Family, lora: LoRAParameters, base: JudgeParameters) -> TrainedAdapter:
        """Copy the adapter of :class:`~vr_pipeline.engine.fine_tuning.FineTuning` in a language model."""
        from peft import LoraConfig

        tensors = {
            f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": weight.detach().cpu().float().contiguous().clone()
            for name, weight in family.model.named_parameters()
            if ".lora_" in name
        }
        prefix = _place_of_language_model(family)
        named = "|".join(re.escape(target) for target in lora.target_modules or family.lora_targets)
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,  # type: ignore[arg-type]
            lora_dropout=lora.dropout,
            # Vision towers of some families have layers with the same names but no adapter.
            target_modules=rf"{re.escape(prefix)}\..*\.({named})",
            base_model_name_or_path=base.path,
            revision=base.revision,
            inference_mode=True,
        )
        return cls(tensors, config.to_dict())

    def save(self, folder: Path) -> None:
        """Write the two files for ``PeftModel.from_pretrained``."""
        from safetensors.torch import save_file

        save_file(self.tensors, folder / _WEIGHTS)
        (folder / _CONFIG).write_text(json.dumps(self.config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _place_of_language_model(family: Family) -> str:
    """Return the name of the language model in the whole model."""
    language = family.language_model
    return next(name for name, module in family.model.named_modules() if module is language)


@dataclass(frozen=True, eq=False)
class TrainedVlm:
    """A trained model.

    Attributes:
        family: the model, with a merged adapter.
        adapter: the adapter; None for full training.
        provenance: base, data and settings.
        log: one row per step.
        summary: figures of the run.
    """

    family: Family
    adapter: TrainedAdapter | None
    provenance: Mapping[str, Any]
    log: Any
    summary: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the model's folder."""
        if self.adapter is not None:
            self.adapter.save(folder)
        else:
            self.family.save(folder)
        record = {"type": "adapter" if self.adapter is not None else "model", **self.provenance}
        text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / RECORD).write_text(text + "\n", encoding="utf-8")
        write_checksums(folder)


def trained_model(base: JudgeParameters, folder: Path) -> JudgeParameters:
    """Return settings to load the model of a policy's folder.

    Args:
        base: settings of the model before training.
        folder: written by :meth:`TrainedVlm.save`.

    Raises:
        InputError: the folder is incomplete.
    """
    damaged = folder / RECORD if not (folder / RECORD).is_file() else damaged_file(folder)
    if damaged is not None:
        raise InputError("a file of the trained model is missing or damaged", remedy=_REMEDY, file=damaged)
    kind = json.loads((folder / RECORD).read_text(encoding="utf-8")).get("type")
    changed = {"adapter": str(folder)} if kind == "adapter" else {"path": str(folder), "revision": None}
    return base.model_copy(update=changed)
