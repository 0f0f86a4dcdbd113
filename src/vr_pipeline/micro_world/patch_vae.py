"""Closed-form autoencoders over space-time patches, with the interfaces of those of CogVideoX and Wan.

The real autoencoders need far more training than a demonstration can afford; principal components of patches of
4 frames x 8 x 8 pixels are fitted in a second and are exact up to the omitted components.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin

PATCH_FRAMES: Final = 4
PATCH_PIXELS: Final = 8


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Linear encoder and decoder of disjoint patches.

    Latents are [batch, channels, frames / frames per patch, height / pixels per patch, width / pixels per patch].
    """

    mean: torch.Tensor
    components: torch.Tensor

    @property
    @abstractmethod
    def patch(self) -> tuple[int, int]:
        """Frames of a patch, and pixels along its edges."""

    def _make_buffers(self, latent_channels: int) -> None:
        time, space = self.patch
        size = 3 * time * space**2
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("components", torch.zeros(latent_channels, size))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the buffers, since there are no parameters."""
        return self.mean.dtype

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """Split [batch, 3, frames, height, width] into [batch, latent frames, rows, columns, patch size]."""
        batch, channels, frames, height, width = pixels.shape
        time, space = self.patch
        split = pixels.reshape(batch, channels, frames // time, time, height // space, space, width // space, space)
        return split.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)

    def pixels(self, patches: torch.Tensor) -> torch.Tensor:
        """Return the clips whose :meth:`patches` these are."""
        time, space = self.patch
        batch, frames, rows, columns, _ = patches.shape
        split = patches.reshape(batch, frames, rows, columns, 3, time, space, space)
        return split.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(batch, 3, frames * time, rows * space, columns * space)

    def to_latents(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Scale coordinates along the components, [..., channels]."""
        return coordinates

    def to_coordinates(self, latents: torch.Tensor) -> torch.Tensor:
        """Undo :meth:`to_latents`."""
        return latents

    def encode(self, pixels: torch.Tensor) -> AutoencoderKLOutput:
        """Encode pixels in -1 to 1, [batch, 3, frames, height, width]; the distribution has no spread."""
        centred = self.patches(pixels) - self.mean
        latents = self.to_latents(centred @ self.components.T).permute(0, 4, 1, 2, 3)
        moments = torch.cat([latents, torch.full_like(latents, -30.0)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    def decode(self, latents: torch.Tensor, return_dict: bool = True) -> DecoderOutput | tuple[torch.Tensor]:
        """Decode latents to pixels in -1 to 1, [batch, 3, frames, height, width]."""
        coordinates = self.to_coordinates(latents.permute(0, 2, 3, 4, 1))
        pixels = self.pixels(coordinates @ self.components + self.mean)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    def take(self, mean: torch.Tensor, components: torch.Tensor) -> None:
        """Set the mean and the components of patches, of any precision."""
        self.mean.copy_(mean.float())
        self.components.copy_(components.float())


class PatchVAE(PatchAutoencoder):
    """The autoencoder of the tiny CogVideoX.

    Args:
        latent_channels: principal components kept.
        temporal_compression_ratio: frames per patch.
        spatial_patch: height and width of a patch in pixels.
        scaling_factor: as in CogVideoX; 1, since latents leave the encoder with unit scale.
        block_out_channels: only its length matters: the pipeline derives the spatial compression from it.
    """

    scale: torch.Tensor

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 64,
        temporal_compression_ratio: int = PATCH_FRAMES,
        spatial_patch: int = PATCH_PIXELS,
        scaling_factor: float = 1.0,
        block_out_channels: tuple[int, ...] = (1, 1, 1, 1),
    ) -> None:
        super().__init__()
        self._make_buffers(latent_channels)
        self.register_buffer("scale", torch.ones(latent_channels))

    @property
    def patch(self) -> tuple[int, int]:
        return int(self.config.temporal_compression_ratio), int(self.config.spatial_patch)

    def to_latents(self, coordinates: torch.Tensor) -> torch.Tensor:
        return coordinates / self.scale

    def to_coordinates(self, latents: torch.Tensor) -> torch.Tensor:
        return latents * self.scale

    @classmethod
    def fit(cls, clips: npt.NDArray[np.uint8], *, latent_channels: int = 64, whitening: float = 0.4) -> PatchVAE:
        """Fit the principal components of clips.

        Args:
            clips: uint8 [clips, frames, height, width, 3].
            whitening: see :func:`principal_components`.
        """
        model = cls(latent_channels=latent_channels)
        mean, components, scale = principal_components(model, clips, latent_channels, whitening)
        model.take(mean, components)
        model.scale.copy_(scale.float())
        return model.eval()


class WanPatchVAE(PatchAutoencoder):
    """The autoencoder of the tiny Wan, for clips of two latent frames.

    ``WanPipeline`` takes 1 + n scale_factor_temporal frames for 1 + n latent ones. Here every latent frame stands for
    ``temporal_patch`` frames, and a clip of two latent frames has 8, which the pipeline counts as 1 + 7.

    Args:
        z_dim: principal components kept.
        temporal_patch: frames per patch.
        scale_factor_temporal: the pipeline's factor: frames of a clip minus one.
        scale_factor_spatial: height and width of a patch in pixels.
        latents_mean: of each component, [z_dim].
        latents_std: divisor of each component, [z_dim]; the pipeline applies it, not the encoder.
    """

    @register_to_config
    def __init__(
        self,
        z_dim: int = 64,
        temporal_patch: int = PATCH_FRAMES,
        scale_factor_temporal: int = 2 * PATCH_FRAMES - 1,
        scale_factor_spatial: int = PATCH_PIXELS,
        latents_mean: tuple[float, ...] = (0.0,) * 64,
        latents_std: tuple[float, ...] = (1.0,) * 64,
    ) -> None:
        super().__init__()
        self._make_buffers(z_dim)

    @property
    def patch(self) -> tuple[int, int]:
        return int(self.config.temporal_patch), int(self.config.scale_factor_spatial)

    @classmethod
    def fit(cls, clips: npt.NDArray[np.uint8], *, latent_channels: int = 64, whitening: float = 0.4) -> WanPatchVAE:
        """Fit as :meth:`PatchVAE.fit` does; the scale of a component is its ``latents_std``."""
        mean, components, scale = principal_components(cls(), clips, latent_channels, whitening)
        model = cls(
            z_dim=latent_channels,
            latents_mean=(0.0,) * latent_channels,
            latents_std=tuple(round(float(one), 6) for one in scale),
        )
        model.take(mean, components)
        return model.eval()


def principal_components(
    model: PatchAutoencoder, clips: npt.NDArray[np.uint8], count: int, whitening: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean, first principal components and their scales of the patches that a model makes of clips.

    Args:
        clips: uint8 [clips, frames, height, width, 3].
        count: of components.
        whitening: 0 keeps the variance of each component, 1 makes all equal. Full whitening would make the
            generator spend its capacity on invisible components.

    Returns:
        float64 [patch size], [count, patch size], [count]; latents have unit scale on average.
    """
    pixels = torch.from_numpy(clips).permute(0, 4, 1, 2, 3).to(torch.float64) / 127.5 - 1.0
    patches = model.patches(pixels).flatten(0, 3)
    mean = patches.mean(dim=0)
    centred = patches - mean
    variance, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = torch.argsort(variance, descending=True, stable=True)[:count]
    components = vectors[:, kept].T
    # Eigenvectors have no sign; fix it, so that the same clips always give the same file.
    strongest = components.abs().argmax(dim=1, keepdim=True)
    components = components * torch.sign(torch.gather(components, 1, strongest))
    deviation = variance[kept].clamp_min(1e-12).sqrt()
    scale = deviation**whitening
    return mean, components, scale * ((deviation / scale) ** 2).mean().sqrt()
