"""The tiny Wan of the micro-world, untrained: the published classes with few and narrow layers."""

from typing import Any

import torch

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.micro_world.config import FlowPretrainingParameters
from vr_pipeline.micro_world.flow_generator import MicroWanGenerator
from vr_pipeline.micro_world.patch_vae import WanPatchVAE
from vr_pipeline.micro_world.pretraining import build_tokenizer, text_encoder_sizes


def build_pipeline(vae: WanPatchVAE, parameters: FlowPretrainingParameters, seed: int) -> Any:
    """Return an untrained ``WanPipeline`` with random weights drawn from the seed.

    The scheduler is that of Wan 2.1 text-to-video (1.3B).
    """
    from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    tokenizer = build_tokenizer()
    torch.manual_seed(sample_seed(seed, "initial weights of the flow", 0))
    transformer = WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=parameters.num_attention_heads,
        attention_head_dim=24,
        in_channels=vae.config.z_dim,
        out_channels=vae.config.z_dim,
        text_dim=32,
        freq_dim=64,
        ffn_dim=24 * parameters.num_attention_heads * parameters.feed_forward_factor,
        num_layers=parameters.num_layers,
        rope_max_seq_len=32,
    )
    text_encoder = UMT5EncoderModel(UMT5Config(**text_encoder_sizes(tokenizer)))
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=parameters.flow_shift
    )
    return WanPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
    )


def untrained(
    vae: WanPatchVAE, sampling: GeneratorParameters, parameters: FlowPretrainingParameters, seed: int
) -> MicroWanGenerator:
    """Return the tiny Wan before its training."""
    return MicroWanGenerator(build_pipeline(vae, parameters, seed), sampling, identity="untrained")
