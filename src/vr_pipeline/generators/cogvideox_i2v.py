"""CogVideoX from an image (5B and 1.5-5B): latents of the first frame are channels beside the noised latents.

Source: Yang et al., CogVideoX, section on image to video, and the pipeline in diffusers. All latent frames but the
first have zeros there, and every latent frame is predicted. The published training adds noise to the image, so that the
model does not rely on every pixel of it; sampling does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.errors import InputError
from vr_pipeline.generators.cogvideox import CogVideoXGenerator
from vr_pipeline.generators.contract import Condition, Images
from vr_pipeline.generators.first_frames import FirstFrameGenerator
from vr_pipeline.generators.settings import PIPELINE, Relied, equal_to, none_or, of_class, one_of, whole
from vr_pipeline.identifiers import content_hash

if TYPE_CHECKING:
    import torch


class CogVideoXImageGenerator(FirstFrameGenerator, CogVideoXGenerator):
    """A ``CogVideoXImageToVideoPipeline`` of diffusers behind the contract."""

    pipeline_class: ClassVar[str] = "CogVideoXImageToVideoPipeline"
    adds_first_frame_noise: ClassVar[bool] = True

    relied_on: ClassVar[Relied] = CogVideoXGenerator.relied_on | {
        PIPELINE: of_class("CogVideoXImageToVideoPipeline", "only image-to-video pipelines of CogVideoX are read"),
        "transformer": CogVideoXGenerator.relied_on["transformer"]
        | {
            "ofs_embed_dim": (none_or(whole), "the condition 'ofs' has a width where the model takes it"),
            "in_channels": (
                equal_to(lambda settings: 2 * settings["vae"]["latent_channels"]),
                "the denoiser takes the latents and those of the first frame",
            ),
            "use_learned_positional_embeddings": (
                one_of(True, False),
                "positions are learned, those of CogVideoX 5B, or computed",
            ),
        },
    }

    def check_size(self) -> None:
        super().check_size()
        config, scale = self._denoiser_config, self.pipeline.vae_scale_factor_spatial
        if not config["use_learned_positional_embeddings"]:
            return
        learned = {name: config[f"sample_{name}"] * scale for name in ("height", "width")}
        for field, known in (learned | {"num_frames": config["sample_frames"]}).items():
            if (asked := getattr(self.parameters, field)) != known:
                raise InputError(
                    f"this model has learned positions for clips whose {field} is {known}, but {asked} is configured",
                    field=f"generator.{field}",
                    remedy=f"choose {known}",
                )

    def image_argument(self, images: Images) -> dict[str, Any]:
        return {"image": self.pictures(images)}

    def encode_images(self, images: Images) -> Condition:
        import torch

        vae, config = self.ready(self.pipeline.vae), self.pipeline.vae.config
        frames = self.fitted(images)
        pixels = self.pixels(frames[:, None], torch.float32)
        if self.parameters.first_frame_noise:
            pixels = pixels + torch.stack([_noise_of(frame.tobytes(), pixels.shape[1:]) for frame in frames]).to(pixels)
        with torch.no_grad():
            latents = vae.encode(pixels.to(vae.dtype)).latent_dist.mode()
        scale = 1.0 / config.scaling_factor if config.invert_scale_latents else config.scaling_factor
        return {"first_frame": (latents * scale).permute(0, 2, 1, 3, 4).float().cpu()}

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        import torch

        frame = torch.zeros_like(noised)
        frame[:, :1] = condition["first_frame"].to(noised)
        return super().predict(torch.cat([noised, frame], dim=2), timesteps, condition)


def _noise_of(content: bytes, shape: torch.Size) -> torch.Tensor:
    """Return the noise of an image, which is always the same one."""
    import torch

    random = torch.Generator().manual_seed(int(content_hash("first frame noise", content), 16) >> 1)
    return torch.exp(torch.randn((), generator=random) * 0.5 - 3.0) * torch.randn(shape, generator=random)
