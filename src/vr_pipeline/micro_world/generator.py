"""The tiny CogVideoX of the embedded default: all classes are the published ones except the autoencoder."""

from typing import Any, ClassVar

from vr_pipeline.generators.cogvideox import NETWORK_AND_SCHEDULE, CogVideoXGenerator
from vr_pipeline.generators.pipeline_kinds import VideoPipelineGenerator
from vr_pipeline.generators.settings import Relied, Settings, of_class


def _as_pipelines_derive_it(value: Any, settings: Settings) -> bool:
    return bool(value == 2 ** (len(settings["vae"]["block_out_channels"]) - 1))


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

    relied_on: ClassVar[Relied] = NETWORK_AND_SCHEDULE | {
        "vae": NETWORK_AND_SCHEDULE["vae"]
        | {
            **of_class("PatchVAE", "the autoencoder is that of the micro-world"),
            "spatial_patch": (_as_pipelines_derive_it, "pipelines derive it from 'block_out_channels'"),
        }
    }

    @property
    def frame_group(self) -> int:
        """Frames per latent frame."""
        return VideoPipelineGenerator.frame_group.fget(self)  # type: ignore[attr-defined, no-any-return]

    @classmethod
    def own_classes(cls) -> dict[str, type]:
        # diffusers takes seconds to import, and a run that finds all clips there does not need it.
        from vr_pipeline.micro_world.patch_vae import PatchVAE

        return {"vae": PatchVAE}
