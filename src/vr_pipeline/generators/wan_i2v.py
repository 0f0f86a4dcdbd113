"""Wan 2.1 and 2.2, image-to-video: the first frame is a condition.

Source: Wan Team 2025 and the pipeline in diffusers. Wan 2.1 and 2.2 A14B take the latents of the first frame followed
by grey, and a mask of the given frames, beside the noised latents; Wan 2.1 also takes features of the image by CLIP.
TI2V-5B has the first latent frame itself in place of a noised one, at time 0: there is nothing to predict in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition, Images, Part
from vr_pipeline.generators.first_frames import FirstFrameGenerator
from vr_pipeline.generators.settings import PIPELINE, Relied, Settings, equal_to, of_class, one_of
from vr_pipeline.generators.wan import PIXELS_A_TOKEN, WanGenerator
from vr_pipeline.generators.wan_experts import WanExpertsGenerator

if TYPE_CHECKING:
    import torch

_IMAGE_ENCODER = "image_encoder"


def _latents_and_frame(value: Any, settings: Settings) -> bool:
    vae = settings["vae"]
    beside = 0 if settings[PIPELINE]["expand_timesteps"] else vae["z_dim"] + vae["scale_factor_temporal"]
    return bool(value == vae["z_dim"] + beside)


def _width_of_attention(value: Any, settings: Settings) -> bool:
    network = settings["transformer"]
    width = network["num_attention_heads"] * network["attention_head_dim"]
    return bool(value == (None if network["image_dim"] is None else width))


_NETWORK = WanGenerator.relied_on["transformer"] | {
    "in_channels": (
        _latents_and_frame,
        "the denoiser takes the latents, those of the first frame and its mask; with a time for each token the latents "
        "alone",
    ),
    "image_dim": (
        equal_to(lambda settings: settings.get(_IMAGE_ENCODER, {}).get("hidden_size")),
        "features of the image have the width of the model's own encoder, if it has one",
    ),
    "added_kv_proj_dim": (_width_of_attention, "features of the image are attended to as the text is"),
    "pos_embed_seq_len": (one_of(None), "there is a first frame and no last one"),
}
_NETWORK.pop("image_dim added_kv_proj_dim pos_embed_seq_len")


class WanImageGenerator(FirstFrameGenerator, WanGenerator):
    """A ``WanImageToVideoPipeline`` of diffusers with one transformer (Wan 2.1, TI2V-5B) behind the contract."""

    pipeline_class: ClassVar[str] = "WanImageToVideoPipeline"
    optional_parts: ClassVar[tuple[str, ...]] = (_IMAGE_ENCODER,)

    relied_on: ClassVar[Relied] = WanGenerator.relied_on | {
        PIPELINE: WanGenerator.relied_on[PIPELINE]
        | {
            # TI2V-5B is published as a pipeline from text, which samples from an image too.
            **of_class("WanImageToVideoPipeline WanPipeline", "only pipelines of Wan are read"),
            "transformer_2": (
                one_of(None),
                "there is one transformer for all times; a second transformer, that of Wan 2.2 A14B, is read by the "
                "family wan_i2v_experts",
            ),
        },
        "transformer": _NETWORK,
        _IMAGE_ENCODER: of_class("CLIPVisionModel", "features of the image are those of CLIP"),
    }

    @classmethod
    def _component_names(cls, part: Part) -> tuple[str, ...]:
        names = super()._component_names(part)
        return (*names, _IMAGE_ENCODER) if part == "text_encoder" else names

    @property
    def given_frames(self) -> int:
        return 1 if self.pipeline.config.expand_timesteps else 0

    def check_size(self) -> None:
        super().check_size()
        if self.parameters.batch_size > 1:
            raise InputError(
                "this model's pipeline takes one image for all clips of a batch, but a batch_size of "
                f"{self.parameters.batch_size} is configured",
                field="generator.batch_size",
                remedy="choose 1",
            )
        if self.parameters.num_frames == 1:
            raise InputError(
                "this model continues a first frame, but a num_frames of 1 is configured",
                field="generator.num_frames",
                remedy=f"choose {1 + self.frame_group} or more",
            )

    def image_argument(self, images: Images) -> dict[str, Any]:
        return {"image": self.pictures(images)[0]}

    def encode_images(self, images: Images) -> Condition:
        import torch

        vae, encoder = self.ready(self.pipeline.vae), self.pipeline.image_encoder
        pixels = self.pixels(self.fitted(images)[:, None], vae.dtype)
        if not (alone := self.given_frames):
            grey = pixels.new_zeros(*pixels.shape[:2], self.parameters.num_frames - 1, *pixels.shape[3:])
            pixels = torch.cat([pixels, grey], dim=2)
        with torch.no_grad():
            latents = self.normalised(vae.encode(pixels).latent_dist.mode())
            if alone:
                return {"first_frame": latents}
            mask = torch.zeros_like(latents[:, : self.frame_group])
            mask[:, :, 0] = 1
            condition = {"first_frame": torch.cat([mask, latents], dim=1)}
            if encoder is not None:
                self.ready(encoder)
                features = [self.pipeline.encode_image(one, self.device) for one in self.pictures(images)]
                condition["image_embeddings"] = torch.cat(features).cpu()
        return condition

    def network_inputs(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> dict[str, Any]:
        import torch

        frame = condition["first_frame"].to(noised)
        if not self.given_frames:
            made = super().network_inputs(torch.cat([noised, frame], dim=1), timesteps, condition)
            if (features := condition.get("image_embeddings")) is not None:
                made["encoder_hidden_states_image"] = features.to(noised.device, self.dtype)
            return made
        made = super().network_inputs(torch.cat([frame, noised[:, :, 1:]], dim=2), timesteps, condition)
        made["timestep"] = made["timestep"].clone()
        made["timestep"][:, : noised[0, 0, 0].numel() // PIXELS_A_TOKEN] = 0
        return made


class WanImageExpertsGenerator(WanImageGenerator, WanExpertsGenerator):
    """A ``WanImageToVideoPipeline`` of diffusers with two transformers (Wan 2.2 I2V-A14B) behind the contract."""

    optional_parts: ClassVar[tuple[str, ...]] = ()

    relied_on: ClassVar[Relied] = WanExpertsGenerator.relied_on | {
        PIPELINE: WanExpertsGenerator.relied_on[PIPELINE]
        | {
            **of_class("WanImageToVideoPipeline", "only image-to-video pipelines of Wan are read"),
            _IMAGE_ENCODER: (one_of(None), "models of two transformers take no features of the image"),
        },
        "transformer": _NETWORK,
        "transformer_2": _NETWORK,
    }

    @classmethod
    def _component_names(cls, part: Part) -> tuple[str, ...]:
        return tuple(name for name in super()._component_names(part) if name != _IMAGE_ENCODER)
