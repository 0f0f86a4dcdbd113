"""The tiny Wan of the environment ``flow``: all classes are the published ones except the autoencoder."""

from typing import ClassVar

from vr_pipeline.generators.settings import Relied, of_class
from vr_pipeline.generators.wan import WanGenerator


class MicroWanGenerator(WanGenerator):
    """Wan with the closed-form patch autoencoder of the micro-world."""

    lone_frames: ClassVar[int] = 0
    lora_targets: ClassVar[tuple[str, ...]] = (*WanGenerator.lora_targets, "ffn.net.0.proj", "ffn.net.2")

    relied_on: ClassVar[Relied] = WanGenerator.relied_on | {
        "vae": WanGenerator.relied_on["vae"] | of_class("WanPatchVAE", "the autoencoder is that of the micro-world")
    }

    @property
    def frame_group(self) -> int:
        """Frames per latent frame."""
        return int(self.pipeline.vae.config.temporal_patch)

    @property
    def text_length(self) -> int:
        """Tokens of every prompt of the micro-world."""
        return int(self.pipeline.tokenizer.model_max_length)

    @classmethod
    def own_classes(cls) -> dict[str, type]:
        # diffusers takes seconds to import, and a run that finds all clips there does not need it.
        from vr_pipeline.micro_world.patch_vae import WanPatchVAE

        return {"vae": WanPatchVAE}
