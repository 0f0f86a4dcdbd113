"""The tiny CogVideoX of the embedded default: all classes as published but the autoencoder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from vr_pipeline.generators.cogvideox import CogVideoXGenerator
from vr_pipeline.generators.contract import Part


class MicroWorldGenerator(CogVideoXGenerator):
    """CogVideoX with the closed-form patch autoencoder of the micro-world."""

    lone_frames: ClassVar[int] = 0
    lora_targets: ClassVar[tuple[str, ...]] = (
        *CogVideoXGenerator.lora_targets,
        "ff.net.0.proj",
        "ff.net.2",
        "norm1.linear",
        "norm2.linear",
    )

    @classmethod
    def own_components(cls, folder: Path, parts: Collection[Part]) -> dict[str, Any]:
        if "autoencoder" not in parts:
            return {}
        from vr_pipeline.micro_world.patch_vae import PatchVAE

        return {"vae": PatchVAE.from_pretrained(folder / "vae", use_safetensors=True)}
