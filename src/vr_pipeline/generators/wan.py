"""Wan 2.1 text-to-video: rectified flow.

Source: Wan Team 2025, Wan: Open and Advanced Large-Scale Video Generative Models. With sigma from 0 (data) to 1
(noise), x_sigma = (1 - sigma) x_0 + sigma noise, and the network predicts the velocity noise - x_0 at the time
1000 sigma.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition, Frames
from vr_pipeline.generators.pipeline_kinds import VideoPipelineGenerator
from vr_pipeline.generators.settings import PIPELINE, Relied, Settings, one_of, positive, same_as, whole

if TYPE_CHECKING:
    import torch


def _statistics(value: Any, settings: Settings) -> bool:
    """Return one finite number for each channel of the latents."""
    numbers = isinstance(value, list | tuple) and all(
        isinstance(one, int | float) and math.isfinite(one) for one in value
    )
    return numbers and len(value) == settings["vae"]["z_dim"]


def _deviations(value: Any, settings: Settings) -> bool:
    return _statistics(value, settings) and all(one > 0 for one in value)


def _square_patches(value: Any, _: Settings) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and value[0] == 1 and value[1] == value[2] > 0


_OTHER_SIGMAS = "training draws its times as the scheduler shifts its own, without further curves"


class WanGenerator(VideoPipelineGenerator):
    """A ``WanPipeline`` of diffusers with one transformer (Wan 2.1) behind the contract."""

    pipeline_class: ClassVar[str] = "WanPipeline"
    prediction_type: ClassVar[str] = "flow"
    error_space: ClassVar[str] = "velocity"
    frame_axis: ClassVar[int | None] = 2

    relied_on: ClassVar[Relied] = {
        PIPELINE: {
            "_class_name": (one_of("WanPipeline"), "only text-to-video pipelines of Wan are read"),
            "transformer_2": (
                one_of(None),
                "Wan 2.2's second transformer, which denoises where little noise is left, is not supported: only the "
                "first would be trained, at times that it never sees",
            ),
            "boundary_ratio": (one_of(None), "there is one transformer, Wan 2.1's, for all times"),
            "expand_timesteps": (one_of(False), "every token gets the same time, unlike in Wan 2.2 TI2V-5B"),
        },
        "transformer": {
            "_class_name": (one_of("WanTransformer3DModel"), "the denoiser is that of Wan 2.1"),
            "patch_size": (_square_patches, "patches are squares within one latent frame"),
            "in_channels": (
                same_as("vae", "z_dim"),
                "the denoiser takes the autoencoder's latents alone; image-to-video models take an image beside them",
            ),
            "out_channels": (same_as("vae", "z_dim"), "the denoiser predicts the latents alone"),
            "image_dim added_kv_proj_dim pos_embed_seq_len": (one_of(None), "there is no image condition"),
            "text_dim": (same_as("text_encoder", "d_model"), "the text encoder has another width"),
        },
        "text_encoder": {
            "_class_name": (one_of("UMT5EncoderModel"), "prompts are encoded by UMT5"),
        },
        "vae": {
            "_class_name": (one_of("AutoencoderKLWan"), "the autoencoder is that of Wan"),
            "latents_mean": (_statistics, "latents are normalised by one finite number a channel"),
            "latents_std": (_deviations, "latents are normalised by one finite number above 0 a channel"),
        },
        "scheduler": {
            "_class_name": (
                one_of("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"),
                "the schedule is a rectified flow's",
            ),
            "prediction_type": (
                one_of("flow_prediction", None),
                "the loss is that of a network that predicts the flow",
            ),
            "use_flow_sigmas": (one_of(True, None), "the schedule is a rectified flow's"),
            "num_train_timesteps": (whole, "the network is given times of so many steps"),
            "shift flow_shift": (lambda value, all_: value is None or positive(value, all_), "times are shifted by it"),
            "use_dynamic_shifting": (one_of(False, None), "the shift is one number for every size"),
            "shift_terminal": (one_of(None), _OTHER_SIGMAS),
            "use_karras_sigmas use_exponential_sigmas use_beta_sigmas use_lu_lambdas": (
                one_of(False, None),
                _OTHER_SIGMAS,
            ),
            "invert_sigmas": (one_of(False, None), "noise falls while sampling"),
            "final_sigmas_type": (one_of("zero", None), "sampling ends without noise"),
            "stochastic_sampling": (one_of(False, None), "this pipeline draws such noise without the clip's seed"),
            "algorithm_type": (
                one_of("dpmsolver++", "dpmsolver", None),
                "this pipeline draws the noise of stochastic solvers without the clip's seed",
            ),
        },
    }

    # As the documentation of diffusers advises for this autoencoder.
    autoencoder_dtype: ClassVar[str | None] = "float32"

    def check_size(self) -> None:
        super().check_size()
        longest = int(self.denoiser.config["rope_max_seq_len"])  # type: ignore[index]
        latent_frames = 1 + self.parameters.num_frames // self.frame_group
        tokens = {name: getattr(self.parameters, name) // self.pixels_a_token for name in ("height", "width")}
        for field, count in {"num_frames": latent_frames, **tokens}.items():
            if count > longest:
                raise InputError(
                    f"this model has positions for {longest} tokens along each side of a clip, and for {field} "
                    f"{getattr(self.parameters, field)} is asked for",
                    field=f"generator.{field}",
                    remedy=f"choose a smaller {field}",
                )

    @property
    def text_length(self) -> int:
        """Tokens to which every prompt is padded with zeros, as in training of the published models."""
        return 512

    # -- encoding ---------------------------------------------------------------------------------------------------

    def encode_frames(self, clips: Frames) -> torch.Tensor:
        import torch

        latents, config = self.posterior_mode(clips).float().cpu(), self.pipeline.vae.config
        mean = torch.tensor(config.latents_mean).view(1, -1, 1, 1, 1)
        deviation = torch.tensor(config.latents_std).view(1, -1, 1, 1, 1)
        return (latents - mean) / deviation

    # -- training ---------------------------------------------------------------------------------------------------

    @property
    def shift(self) -> float:
        """How far the schedule leans towards noise; the name differs between schedulers."""
        config = self.pipeline.scheduler.config
        return float(config.get("shift") or config.get("flow_shift") or 1.0)

    def noise_share(self, timesteps: torch.Tensor) -> torch.Tensor:
        return timesteps / self.pipeline.scheduler.config.num_train_timesteps  # type: ignore[no-any-return]

    def initial_noise(self, shape: Sequence[int], seed: int) -> torch.Tensor:
        import torch

        return torch.randn(1, *shape, generator=torch.Generator("cpu").manual_seed(seed))[0]

    def draw_timesteps(self, count: int, random: torch.Generator) -> torch.Tensor:
        """Draw times along the schedule that sampling takes: uniform, then shifted as the scheduler shifts its own."""
        import torch

        steps = self.pipeline.scheduler.config.num_train_timesteps
        uniform = torch.randint(1, steps + 1, (count,), generator=random) / steps
        return steps * self.shift * uniform / (1.0 + (self.shift - 1.0) * uniform)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        share = self.noise_share(timesteps.to(latents.device, latents.dtype)).view((-1,) + (1,) * (latents.ndim - 1))
        return (1.0 - share) * latents + share * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return noise - latents

    def predict(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        return self.pipeline.transformer(  # type: ignore[no-any-return]
            hidden_states=noised.to(self.dtype),
            timestep=timesteps,
            encoder_hidden_states=condition["prompt_embeddings"].to(noised.device, self.dtype),
            return_dict=False,
        )[0]
