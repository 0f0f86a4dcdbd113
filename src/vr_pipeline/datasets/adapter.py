"""A low-rank adapter in a folder: safetensors that plain diffusers loads, its configuration and a model card."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Adapter

WEIGHTS = "pytorch_lora_weights.safetensors"
CONFIG = "adapter_config.json"
CARD = "README.md"


class AdapterDataset(AbstractDataset[Adapter, Adapter]):
    """Saves and loads :class:`~vr_pipeline.generators.contract.Adapter`.

    The folder is replaced as a whole: it is written beside its place and renamed, and the old one is deleted only
    then, so that a kill loses neither.

    Args:
        path: the folder.
        metadata: for plugins; not used here.
    """

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(path)
        self.metadata = metadata

    def save(self, data: Adapter) -> None:
        from safetensors.torch import save_file

        temporary = self._path.with_name(f".{self._path.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        # The header diffusers itself writes; without it, a scale other than the rank would be lost on loading.
        header = json.dumps({f"{data.component}.{key}": value for key, value in data.config.items()}, sort_keys=True)
        tensors = {name: value.contiguous() for name, value in data.tensors.items()}
        # One key only: several are written in an order that changes from run to run.
        save_file(tensors, temporary / WEIGHTS, metadata={"lora_adapter_metadata": header})
        content = {"peft_type": "LORA", "base_model_identity": data.base, **data.config, "provenance": data.provenance}
        (temporary / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        (temporary / CARD).write_text(_card(data), encoding="utf-8")
        old = self._path.with_name(f".{self._path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._path.exists():
            os.replace(self._path, old)
        os.replace(temporary, self._path)
        shutil.rmtree(old, ignore_errors=True)

    def load(self) -> Adapter:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not self._exists():
            raise InputError(
                f"the adapter is not complete: {WEIGHTS} and {CONFIG} are needed",
                file=self._path,
                remedy="run the pipeline dpo_training, or copy the whole folder",
            )
        try:
            content = json.loads((self._path / CONFIG).read_text(encoding="utf-8"))
            config = {key: content[key] for key in ("r", "lora_alpha", "target_modules")}
            base = content["base_model_identity"]
        except (ValueError, KeyError) as error:
            raise InputError(
                f"not the configuration of an adapter that this project made ({error!r})",
                file=self._path / CONFIG,
                remedy="run the pipeline dpo_training, or copy the whole folder",
            ) from error
        try:
            tensors = load_file(self._path / WEIGHTS)
        except SafetensorError as error:
            raise InputError(
                f"not a safetensors file ({error})",
                file=self._path / WEIGHTS,
                remedy="only safetensors are read, since pickled weights can run code; run dpo_training again",
            ) from error
        return Adapter(tensors=tensors, config=config, base=base, provenance=content.get("provenance", {}))

    def _exists(self) -> bool:
        return (self._path / WEIGHTS).is_file() and (self._path / CONFIG).is_file()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}


def _card(adapter: Adapter) -> str:
    lines = [
        "# Preference-trained adapter",
        "",
        "A low-rank adapter for the denoiser of a text-to-video or text-to-image pipeline, trained by vr_pipeline on "
        "pairs of generated clips.",
        "",
        f"- part of the pipeline: {adapter.component}",
        f"- rank {adapter.config['r']}, scale (alpha) {adapter.config['lora_alpha']}",
        f"- layers: {', '.join(adapter.config['target_modules'])}",
        f"- base model identity: `{adapter.base}`",
        f"- identity of this adapter: `{adapter.identity}`",
        "",
        "## How it was trained",
        "",
        *(f"- {key}: {value}" for key, value in sorted(adapter.provenance.items())),
        "",
        "## How to load it",
        "",
        "```python",
        "pipeline = DiffusionPipeline.from_pretrained(BASE)",
        "pipeline.load_lora_weights(THIS_FOLDER)",
        "```",
        "",
    ]
    return "\n".join(lines)
