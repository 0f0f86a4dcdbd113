"""Tiny random models of the published classes, saved in diffusers layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.generators.config import GeneratorParameters


def first_frames(count: int = 3, height: int = 40, width: int = 56) -> list[NDArray[np.uint8]]:
    """Images of another size and shape than the clips."""
    return list(np.random.default_rng(3).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


PROMPTS = ("red ball moves left on black", "blue cross moves right on white", "green ring moves left on white")


def word_text_encoder(tokenizer: Any, seed: int) -> Any:
    """A tiny T5."""
    import torch
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=37,
            num_layers=1,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def save_cogvideox(folder: Path, *, rotary: bool, patch_size_t: int | None = None, image: bool = False) -> Path:
    """CogVideoX with its real autoencoder: positions as in the 2B model, or rotary as in the 5B model.

    With patches of two latent frames it is CogVideoX 1.5. From an image, 5B also has learned positions and 1.5 the
    condition 'ofs'.
    """
    import torch
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXDPMScheduler,
        CogVideoXImageToVideoPipeline,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    from vr_pipeline.micro_world.pretraining import TEXT_LENGTH, build_tokenizer

    tokenizer = build_tokenizer()
    text_encoder = word_text_encoder(tokenizer, 1)
    torch.manual_seed(2)
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        scaling_factor=0.7 if rotary else 1.15258426,
        invert_scale_latents=image and patch_size_t is not None,
    )
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8 if image else 4,
        out_channels=4,
        time_embed_dim=8,
        ofs_embed_dim=8 if image and patch_size_t is not None else None,
        use_learned_positional_embeddings=image and patch_size_t is None,
        text_embed_dim=32,
        num_layers=2,
        sample_width=4 if patch_size_t is None else 6,
        sample_height=4 if patch_size_t is None else 6,
        sample_frames=9,
        patch_size=2,
        patch_size_t=patch_size_t,
        patch_bias=patch_size_t is None,
        temporal_compression_ratio=4,
        max_text_seq_length=TEXT_LENGTH,
        use_rotary_positional_embeddings=rotary,
    )
    scheduler = (CogVideoXDPMScheduler if rotary else CogVideoXDDIMScheduler)(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0 if rotary else 3.0,
    )
    (CogVideoXImageToVideoPipeline if image else CogVideoXPipeline)(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
    ).save_pretrained(folder)
    return folder


def cogvideox_parameters(folder: Path, **changes: Any) -> GeneratorParameters:
    """Settings that fit :func:`save_cogvideox`."""
    return GeneratorParameters(
        **(
            {
                "family": "cogvideox",
                "path": str(folder),
                "device": "cpu",
                "num_frames": 9,
                "height": 32,
                "width": 32,
                "num_inference_steps": 2,
                "guidance_scale": 3.0,
                "batch_size": 2,
                "threads": 1,
            }
            | changes
        )
    )


def save_micro_world(folder: Path) -> Path:
    """The micro-world's generator with random weights and a fitted autoencoder."""
    from vr_pipeline.micro_world.clips import render_clips
    from vr_pipeline.micro_world.config import PretrainingParameters
    from vr_pipeline.micro_world.patch_vae import PatchVAE
    from vr_pipeline.micro_world.pretraining import build_pipeline

    vae = PatchVAE.fit(render_clips(48, seed=0, purpose="tests").frames, latent_channels=16)
    build_pipeline(vae, PretrainingParameters(num_layers=2, num_attention_heads=2), 0).save_pretrained(folder)
    return folder


def save_micro_wan(folder: Path) -> Path:
    """The micro-world's Wan with random weights and a fitted autoencoder."""
    from vr_pipeline.micro_world.clips import render_clips
    from vr_pipeline.micro_world.config import FlowPretrainingParameters
    from vr_pipeline.micro_world.flow import build_pipeline
    from vr_pipeline.micro_world.patch_vae import WanPatchVAE

    vae = WanPatchVAE.fit(render_clips(48, seed=0, purpose="tests").frames, latent_channels=16)
    build_pipeline(vae, FlowPretrainingParameters(num_layers=2, num_attention_heads=1), 0).save_pretrained(folder)
    return folder


def micro_world_parameters(folder: Path, **changes: Any) -> GeneratorParameters:
    """Settings that fit :func:`save_micro_world`."""
    return GeneratorParameters(
        **(
            {
                "family": "micro_world",
                "path": str(folder),
                "device": "cpu",
                "num_frames": 8,
                "height": 16,
                "width": 16,
                "num_inference_steps": 3,
                "guidance_scale": 1.0,
                "batch_size": 2,
                "threads": 1,
            }
            | changes
        )
    )


def micro_wan_parameters(folder: Path, **changes: Any) -> GeneratorParameters:
    """Settings that fit :func:`save_micro_wan`."""
    return micro_world_parameters(folder, **({"family": "micro_wan"} | changes))


def save_wan(folder: Path, *, five_billion: bool = False, experts: bool = False, image: bool = False) -> Path:
    """Wan 2.1 text-to-video with the scheduler its checkpoints name, or Wan 2.2's.

    Args:
        five_billion: TI2V-5B, which gives each token a time.
        experts: A14B, which has two transformers.
        image: image-to-video; Wan 2.1 then has an encoder of the image too.
    """
    import torch
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanImageToVideoPipeline,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    from vr_pipeline.micro_world.pretraining import build_tokenizer

    tokenizer = build_tokenizer()
    torch.manual_seed(1)
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=8,
            d_ff=37,
            num_layers=1,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    torch.manual_seed(2)
    residual = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}
    vae = AutoencoderKLWan(
        base_dim=4 if five_billion else 3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        **(residual if five_billion else {}),
    )
    network = {
        "patch_size": (1, 2, 2),
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 36 if image else 16,
        "out_channels": 16,
        "text_dim": 32,
        "freq_dim": 256,
        "ffn_dim": 32,
        "num_layers": 2,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 32,
    }
    features: dict[str, Any] = {}
    if image and not experts:
        network |= {"image_dim": 32, "added_kv_proj_dim": 24}
        vision = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=16,
            patch_size=8,
        )
        size = {"height": 16, "width": 16}
        processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size)
        features = {"image_encoder": CLIPVisionModel(vision), "image_processor": processor}
    transformer = WanTransformer3DModel(**network)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    )
    (WanImageToVideoPipeline if image else WanPipeline)(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
        transformer_2=WanTransformer3DModel(**network) if experts else None,
        boundary_ratio=(0.9 if image else 0.875) if experts else None,
        expand_timesteps=five_billion,
        **features,
    ).save_pretrained(folder)
    return folder


def wan_parameters(folder: Path, **changes: Any) -> GeneratorParameters:
    """Settings that fit :func:`save_wan`."""
    return cogvideox_parameters(folder, family="wan", **changes)


def clip_configuration(tokenizer: Any, *, hidden_size: int, **sizes: int) -> Any:
    """A CLIP text encoder of three layers, which projects to its own width, for the words of a tokenizer."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        projection_dim=hidden_size,
        num_hidden_layers=3,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )


def image_autoencoder(**settings: Any) -> Any:
    """An autoencoder of images whose latents are half as wide and high."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        **settings,
    )


def save_sdxl(folder: Path) -> Path:
    """Stable Diffusion XL."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from vr_pipeline.micro_world.pretraining import build_tokenizer

    tokenizer = build_tokenizer()
    configuration = clip_configuration(tokenizer, hidden_size=32, intermediate_size=37, num_attention_heads=4)
    torch.manual_seed(1)
    text_encoder, text_encoder_2 = CLIPTextModel(configuration), CLIPTextModelWithProjection(configuration)
    torch.manual_seed(2)
    vae = image_autoencoder()
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=64,
        norm_num_groups=4,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder,
        text_encoder_2=text_encoder_2,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=scheduler,
    ).save_pretrained(folder)
    return folder


def sdxl_parameters(folder: Path, **changes: Any) -> GeneratorParameters:
    """Settings that fit :func:`save_sdxl`."""
    return cogvideox_parameters(folder, family="sdxl", num_frames=1, **changes)
