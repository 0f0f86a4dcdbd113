"""A closed-form autoencoder over space-time patches, with the interface of ``AutoencoderKLCogVideoX``.

The real autoencoder needs far more training than a demonstration can afford; principal components of patches of
4 frames x 8 x 8 pixels are fitted in a second and are exact up to the components that are left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin


class PatchVAE(ModelMixin, ConfigMixin):
    """Linear encoder and decoder of disjoint patches.

    Latents are [batch, channels, frames / 4, height / 8, width / 8].

    Args:
        latent_channels: principal components kept.
        temporal_compression_ratio: frames a patch.
        spatial_patch: height and width of a patch in pixels.
        scaling_factor: as in CogVideoX; 1, since latents leave the encoder with unit scale.
        block_out_channels: only its length matters: the pipeline derives the spatial compression from it.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 64,
        temporal_compression_ratio: int = 4,
        spatial_patch: int = 8,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        size = 3 * temporal_compression_ratio * spatial_patch**2
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("components", torch.zeros(latent_channels, size))
        self.register_buffer("scale", torch.ones(latent_channels))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the buffers (there are no parameters to ask)."""
        return self.mean.dtype

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """[batch, 3, frames, height, width] to [batch, frames / 4, height / 8, width / 8, patch size]."""
        batch, channels, frames, height, width = pixels.shape
        time, space = self.config.temporal_compression_ratio, self.config.spatial_patch
        split = pixels.reshape(batch, channels, frames // time, time, height // space, space, width // space, space)
        return split.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)

    def encode(self, pixels: torch.Tensor) -> AutoencoderKLOutput:
        """Encode pixels in -1 to 1, [batch, 3, frames, height, width]; the distribution has no spread."""
        centred = self._patches(pixels) - self.mean
        latents = (centred @ self.components.T / self.scale).permute(0, 4, 1, 2, 3)
        moments = torch.cat([latents, torch.full_like(latents, -30.0)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> DecoderOutput:
        """Decode latents to pixels in -1 to 1, [batch, 3, frames, height, width]."""
        time, space = self.config.temporal_compression_ratio, self.config.spatial_patch
        patches = (latents.permute(0, 2, 3, 4, 1) * self.scale) @ self.components + self.mean
        batch, frames, rows, columns, _ = patches.shape
        split = patches.reshape(batch, frames, rows, columns, 3, time, space, space)
        pixels = split.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, 3, frames * time, rows * space, columns * space)
        return DecoderOutput(sample=pixels)

    @classmethod
    def fit(cls, clips: npt.NDArray[np.uint8], *, latent_channels: int = 64, whitening: float = 0.4) -> PatchVAE:
        """Fit the principal components of clips.

        Args:
            clips: uint8 [clips, frames, height, width, 3].
            whitening: 0 keeps the variance of each component, 1 makes all equal. Full whitening would make the
                generator spend its capacity on components nobody sees.
        """
        model = cls(latent_channels=latent_channels)
        pixels = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).to(torch.float64) / 127.5 - 1.0
        patches = model._patches(pixels).flatten(0, 3)
        mean = patches.mean(dim=0)
        centred = patches - mean
        variance, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
        kept = torch.argsort(variance, descending=True, stable=True)[:latent_channels]
        components = vectors[:, kept].T
        # Eigenvectors have no sign; fix it, so that the same clips always give the same file.
        strongest = components.abs().argmax(dim=1, keepdim=True)
        components = components * torch.sign(torch.gather(components, 1, strongest))
        deviation = variance[kept].clamp_min(1e-12).sqrt()
        scale = deviation**whitening
        scale = scale * ((deviation / scale) ** 2).mean().sqrt()
        for name, value in (("mean", mean), ("components", components), ("scale", scale)):
            getattr(model, name).copy_(value.float())
        return model.eval()
