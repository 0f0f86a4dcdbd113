"""A step of preference training at full size: what it needs by calculation, and what it takes where there is a GPU.

Calculated, on any machine and without any memory, from the published configurations with random weights: parameters of
denoiser and adapter, floating-point operations, and the activations that the backward pass keeps, counted tensor by
tensor in bfloat16 with attention as fused kernels do it (queries, keys, values and outputs are kept, scores are not).

Measured, where CUDA is there: CogVideoX-2B, latents of 49 x 480 x 720, an adapter of rank 64, one pair at a time; with
and without gradient checkpointing and torch.compile: seconds a pair, peak memory, and the shares of the policy's
forward pass, of the reference and of the backward pass. Without a GPU it says so; ``--device cpu --tiny`` tries the
code.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

RANK = 64
LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
BYTES = 2  # bfloat16


def cogvideox(**changes: Any) -> Any:
    from diffusers import CogVideoXTransformer3DModel

    published = {
        "num_attention_heads": 30,
        "num_layers": 30,
        "sample_width": 90,
        "sample_height": 60,
        "sample_frames": 49,
        "use_rotary_positional_embeddings": False,
    }
    return CogVideoXTransformer3DModel(**(published | changes))


def cogvideox_inputs(*, rotary: bool) -> dict[str, Any]:
    positions = torch.empty(13 * 30 * 45, 64, dtype=torch.bfloat16)
    return {
        "hidden_states": torch.empty(2, 13, 16, 60, 90, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.empty(2, 226, 4096, dtype=torch.bfloat16),
        "timestep": torch.zeros(2, dtype=torch.long),
        "image_rotary_emb": (positions, positions) if rotary else None,
    }


def wan() -> Any:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30, text_dim=4096
    )


def wan_inputs() -> dict[str, Any]:
    return {
        "hidden_states": torch.empty(2, 16, 21, 60, 104, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.empty(2, 512, 4096, dtype=torch.bfloat16),
        "timestep": torch.zeros(2, dtype=torch.long),
    }


def sdxl() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=2,
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def sdxl_inputs() -> dict[str, Any]:
    return {
        "sample": torch.empty(2, 4, 128, 128, dtype=torch.bfloat16),
        "encoder_hidden_states": torch.empty(2, 77, 2048, dtype=torch.bfloat16),
        "timestep": torch.zeros(2, dtype=torch.long),
        "added_cond_kwargs": {
            "text_embeds": torch.empty(2, 1280, dtype=torch.bfloat16),
            "time_ids": torch.empty(2, 6, dtype=torch.bfloat16),
        },
    }


def half(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.bfloat16)


def times(*shape: int) -> torch.Tensor:
    return torch.zeros(*(shape or (2,)), dtype=torch.bfloat16)


def cogvideox_1_5_inputs() -> dict[str, Any]:
    # 21 latent frames of 81, and a copy of the first before them.
    positions = torch.empty(11 * 48 * 85, 64, dtype=torch.bfloat16)
    return {
        "hidden_states": half(2, 22, 16, 96, 170),
        "encoder_hidden_states": half(2, 226, 4096),
        "timestep": torch.zeros(2, dtype=torch.long),
        "image_rotary_emb": (positions, positions),
    }


def wan_2_2_5b() -> Any:
    from diffusers import WanTransformer3DModel

    sizes = {"num_attention_heads": 24, "attention_head_dim": 128, "ffn_dim": 14336, "num_layers": 30}
    return WanTransformer3DModel(in_channels=48, out_channels=48, **sizes)


def wan_2_2_5b_inputs() -> dict[str, Any]:
    latents = half(2, 48, 31, 44, 80)
    return {
        "hidden_states": latents,
        "encoder_hidden_states": half(2, 512, 4096),
        "timestep": times(2, 31 * 22 * 40),
    }


def hunyuan_video() -> Any:
    from diffusers import HunyuanVideo15Transformer3DModel

    return HunyuanVideo15Transformer3DModel(task_type="t2v")


def hunyuan_video_inputs() -> dict[str, Any]:
    return {
        "hidden_states": half(2, 65, 31, 30, 53),
        "timestep": times(),
        "encoder_hidden_states": half(2, 1000, 3584),
        "encoder_attention_mask": torch.ones(2, 1000),
        "encoder_hidden_states_2": half(2, 256, 1472),
        "encoder_attention_mask_2": torch.ones(2, 256),
        "image_embeds": half(2, 729, 1152),
    }


def ltx_2() -> Any:
    from diffusers import LTX2VideoTransformer3DModel

    return LTX2VideoTransformer3DModel(rope_type="split")


def ltx_2_inputs(sound: int = 1) -> dict[str, Any]:
    """Training of the video alone; sampling denoises ``sound`` tokens beside it."""
    return {
        "hidden_states": half(2, 16 * 16 * 24, 128),
        "audio_hidden_states": half(2, sound, 128),
        "encoder_hidden_states": half(2, 1024, 3840),
        "audio_encoder_hidden_states": half(2, 1 if sound == 1 else 1024, 3840),
        "encoder_attention_mask": torch.ones(2, 1024),
        "timestep": times(),
        "sigma": times(),
        **{"num_frames": 16, "height": 16, "width": 24, "fps": 24.0, "audio_num_frames": sound},
        "isolate_modalities": sound == 1,
    }


def sd35() -> Any:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=128,
        num_layers=24,
        attention_head_dim=64,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        out_channels=16,
        pos_embed_max_size=384,
        dual_attention_layers=tuple(range(13)),
        qk_norm="rms_norm",
    )


def sd35_inputs() -> dict[str, Any]:
    return {
        "hidden_states": half(2, 16, 128, 128),
        "encoder_hidden_states": half(2, 77 + 256, 4096),
        "pooled_projections": half(2, 2048),
        "timestep": times(),
    }


def qwen_image() -> Any:
    from diffusers import QwenImageTransformer2DModel

    return QwenImageTransformer2DModel()


def qwen_image_inputs() -> dict[str, Any]:
    return {
        "hidden_states": half(2, 83 * 83, 64),
        "encoder_hidden_states": half(2, 512, 3584),
        "timestep": times(),
        "img_shapes": [[(1, 83, 83)]] * 2,
    }


def z_image() -> Any:
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel()


def z_image_inputs() -> dict[str, Any]:
    return {"x": [half(16, 1, 128, 128)] * 2, "t": times(), "cap_feats": [half(512, 2560)] * 2}


def flux2_klein() -> Any:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(
        num_layers=5,
        num_single_layers=20,
        num_attention_heads=24,
        joint_attention_dim=7680,
        guidance_embeds=False,
    )


def flux2_klein_inputs() -> dict[str, Any]:
    return {
        "hidden_states": half(2, 64 * 64, 128),
        "encoder_hidden_states": half(2, 512, 7680),
        "timestep": times(),
        "img_ids": torch.zeros(64 * 64, 4),
        "txt_ids": torch.zeros(512, 4),
        "guidance": None,
    }


MODELS: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, Any]], str]] = {
    "cogvideox_2b": (cogvideox, lambda: cogvideox_inputs(rotary=False), "49 x 480 x 720"),
    "cogvideox_5b": (
        lambda: cogvideox(num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True),
        lambda: cogvideox_inputs(rotary=True),
        "49 x 480 x 720",
    ),
    "wan_2.1_1.3b": (wan, wan_inputs, "81 x 480 x 832"),
    "sdxl": (sdxl, sdxl_inputs, "1 x 1024 x 1024"),
    "cogvideox_1_5": (
        lambda: cogvideox(
            num_attention_heads=48,
            num_layers=42,
            patch_size_t=2,
            patch_bias=False,
            sample_height=96,
            sample_width=170,
            use_rotary_positional_embeddings=True,
        ),
        cogvideox_1_5_inputs,
        "81 x 768 x 1360",
    ),
    "wan_2.2_5b": (wan_2_2_5b, wan_2_2_5b_inputs, "121 x 704 x 1280"),
    "hunyuan_video_1.5": (hunyuan_video, hunyuan_video_inputs, "121 x 480 x 848"),
    "ltx_2": (ltx_2, ltx_2_inputs, "121 x 512 x 768"),
    "sd_3.5_medium": (sd35, sd35_inputs, "1 x 1024 x 1024"),
    "qwen_image": (qwen_image, qwen_image_inputs, "1 x 1328 x 1328"),
    "z_image": (z_image, z_image_inputs, "1 x 1024 x 1024"),
    "flux.2_klein_4b": (flux2_klein, flux2_klein_inputs, "1 x 1024 x 1024"),
}
SAMPLING: dict[str, Callable[[], dict[str, Any]]] = {"ltx_2": lambda: ltx_2_inputs(sound=126)}
"""What a network is given while it samples, where that is more than in training."""
TARGETS: dict[str, list[str]] = {
    "ltx_2": [f"{attention}.{one}" for attention in ("attn1", "attn2") for one in LORA_TARGETS],
    "flux.2_klein_4b": [*LORA_TARGETS, "to_qkv_mlp_proj"],
}
"""Layers that get adapters, where they are not the usual ones."""


def cogvideox_autoencoder() -> Any:
    from diffusers import AutoencoderKLCogVideoX

    channels = (128, 256, 256, 512)
    return AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=channels,
        layers_per_block=3,
        latent_channels=16,
    )


def wan_autoencoder() -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan()


def sdxl_autoencoder() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
    )


def t5_xxl() -> Any:
    """The text encoder of CogVideoX; that of Wan has the same layers and more words."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(d_model=4096, d_ff=10240, d_kv=64, num_heads=64, num_layers=24, feed_forward_proj="gated-gelu")
    )


def autoencoder_of(name: str, **sizes: Any) -> Callable[[], Any]:
    """An autoencoder of diffusers, by its class."""

    def build() -> Any:
        import diffusers

        return getattr(diffusers, name)(**sizes)

    return build


IMAGES_OF_FLOW = autoencoder_of(
    "AutoencoderKL",
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    latent_channels=16,
    use_quant_conv=False,
    use_post_quant_conv=False,
)
WAN_2_2 = autoencoder_of(
    "AutoencoderKLWan",
    base_dim=160,
    decoder_base_dim=256,
    z_dim=48,
    in_channels=12,
    out_channels=12,
    patch_size=2,
    is_residual=True,
    scale_factor_spatial=16,
    latents_mean=[0.0] * 48,
    latents_std=[1.0] * 48,
)
LTX_2 = autoencoder_of("AutoencoderKLLTX2Video", spatial_compression_ratio=32, temporal_compression_ratio=8)


def qwen3_4b() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    sizes = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
    return Qwen3Model(Qwen3Config(**sizes, num_key_value_heads=8, head_dim=128, vocab_size=151936))


def qwen_2_5_vl() -> Any:
    from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

    sizes = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    positions = {"rope_type": "default", "mrope_section": [16, 24, 24]}
    return Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(**sizes, num_key_value_heads=4, vocab_size=152064, rope_parameters=positions)
    )


def gemma_3_12b() -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {"hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48, "num_attention_heads": 16}
    vision = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=text | {"num_key_value_heads": 8, "head_dim": 256, "vocab_size": 262208},
            vision_config=vision | {"image_size": 896, "patch_size": 14, "vision_use_head": False},
        )
    )


ENCODERS: dict[str, tuple[Callable[[], Any], tuple[int, ...], Callable[[], Any] | None, int]] = {
    "cogvideox_2b": (cogvideox_autoencoder, (1, 3, 49, 480, 720), t5_xxl, 226),
    "cogvideox_5b": (cogvideox_autoencoder, (1, 3, 49, 480, 720), t5_xxl, 226),
    "wan_2.1_1.3b": (wan_autoencoder, (1, 3, 81, 480, 832), t5_xxl, 512),
    "sdxl": (sdxl_autoencoder, (1, 3, 1024, 1024), None, 0),
    "cogvideox_1_5": (cogvideox_autoencoder, (1, 3, 81, 768, 1360), t5_xxl, 226),
    "wan_2.2_5b": (WAN_2_2, (1, 3, 121, 704, 1280), t5_xxl, 512),
    "hunyuan_video_1.5": (autoencoder_of("AutoencoderKLHunyuanVideo15"), (1, 3, 121, 480, 848), qwen_2_5_vl, 1000),
    "ltx_2": (LTX_2, (1, 3, 121, 512, 768), gemma_3_12b, 1024),
    "sd_3.5_medium": (IMAGES_OF_FLOW, (1, 3, 1024, 1024), t5_xxl, 256),
    "qwen_image": (autoencoder_of("AutoencoderKLQwenImage"), (1, 3, 1, 1328, 1328), qwen_2_5_vl, 546),
    "z_image": (IMAGES_OF_FLOW, (1, 3, 1024, 1024), qwen3_4b, 512),
    "flux.2_klein_4b": (autoencoder_of("AutoencoderKLFlux2"), (1, 3, 1024, 1024), qwen3_4b, 512),
}
"""Autoencoder and the shape of a clip; text encoder and the tokens of a prompt (further ones are small)."""


class _Masks(TorchFunctionMode):
    """Have masks without values let everything through."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        if function is torch.all:
            return torch.ones((), dtype=torch.bool, device="cpu")
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            mask = arguments[1]
            if isinstance(mask, torch.Tensor) and mask.dtype == torch.bool and mask.is_meta:
                if function is torch.Tensor.__setitem__:
                    return None
                return arguments[0][:0] if getattr(mask, "inverted", False) else arguments[0]
        made = function(*arguments, **(keywords or {}))
        if function is torch.Tensor.__invert__:
            made.inverted = True
        return made


class _Attention(torch.autograd.Function):
    """Attention without values: it keeps what a fused kernel keeps, and its operations are counted by formula."""

    operations = 0

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        batch, heads, length, width = query.shape
        _Attention.operations += 4 * batch * heads * length * key.shape[2] * width
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        query, key, value, _ = ctx.saved_tensors
        batch, heads, length, width = query.shape
        # Five products of matrices instead of two: the scores are computed again.
        _Attention.operations += 10 * batch * heads * length * key.shape[2] * width
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


@contextmanager
def counted_attention() -> Iterator[None]:
    functional = torch.nn.functional
    usual = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = lambda query, key, value, **_: _Attention.apply(query, key, value)
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = usual


def operations(compute: Callable[[], Any], keep: Callable[[torch.Tensor], torch.Tensor]) -> tuple[int, Any]:
    """Floating-point operations of a computation, and its result; ``keep`` sees every tensor kept for backward."""
    _Attention.operations = 0
    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value),
    ):
        result = compute()
    return counter.get_total_flops() + _Attention.operations, result


def calculated(name: str) -> dict[str, float]:
    """Sizes and operations of one pair, winner and loser in one batch."""
    from peft import LoraConfig

    build, inputs, _ = MODELS[name]
    figures: dict[str, float] = {}
    with torch.device("meta"), counted_attention(), _Masks():
        network = build().to(torch.bfloat16)
        figures["parameters"] = sum(value.numel() for value in network.parameters())
        figures["blocks"] = max(len(one) for one in network.modules() if isinstance(one, torch.nn.ModuleList))
        network.requires_grad_(False)
        with torch.no_grad():
            figures["sample"], _ = operations(
                lambda: network(**SAMPLING.get(name, inputs)(), return_dict=False), lambda value: value
            )
        targets = TARGETS.get(name, LORA_TARGETS)
        network.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=targets))
        network.to(torch.bfloat16)
        figures["adapter_parameters"] = sum(value.numel() for value in network.parameters() if value.requires_grad)
        own = {value.untyped_storage()._cdata for value in network.parameters()}
        for checkpointing in (False, True):
            if checkpointing:
                network.enable_gradient_checkpointing()
            kept: dict[int, torch.UntypedStorage] = {}

            def keep(value: torch.Tensor, kept: dict[int, torch.UntypedStorage] = kept) -> torch.Tensor:
                storage = value.untyped_storage()
                kept.setdefault(storage._cdata, storage)
                return value

            forward, out = operations(lambda: network(**inputs(), return_dict=False)[0], keep)
            loss = (torch.stack(out) if isinstance(out, list) else out).float().pow(2).mean()
            backward, _ = operations(loss.backward, lambda value: value)
            size = sum(storage.nbytes() for place, storage in kept.items() if place not in own)
            figures["activations_checkpointed" if checkpointing else "activations"] = size
            figures["forward"] = forward
            figures["backward_checkpointed" if checkpointing else "backward"] = backward
            network.zero_grad(set_to_none=True)
    return figures


def calculated_encoding(name: str) -> dict[str, float]:
    """Operations of encoding one clip and one prompt."""
    build, shape, build_text, tokens = ENCODERS[name]
    figures = {}
    with torch.device("meta"), counted_attention(), torch.no_grad():
        autoencoder, clip = build().eval(), torch.empty(shape)
        figures["encode_clip"], _ = operations(lambda: autoencoder.encode(clip), lambda value: value)
        if build_text is not None:
            text = build_text().eval()
            ids = torch.zeros(1, tokens, dtype=torch.long)
            figures["encode_prompt"], _ = operations(lambda: text(input_ids=ids), lambda value: value)
    return {key: float(value) for key, value in figures.items()}


def random_generator(device: str, *, tiny: bool) -> Any:
    """CogVideoX-2B, or a tiny one, with random weights and without encoders, as training has it."""
    from diffusers import CogVideoXDDIMScheduler, CogVideoXPipeline

    from vr_pipeline.generators.cogvideox import CogVideoXGenerator
    from vr_pipeline.generators.config import GeneratorParameters

    torch.manual_seed(0)
    with torch.device(device):
        network = cogvideox(
            **({"num_attention_heads": 2, "num_layers": 2, "sample_width": 8, "sample_height": 8} if tiny else {})
        ).to(torch.bfloat16)
    pipeline = CogVideoXPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=None,
        transformer=network,
        scheduler=CogVideoXDDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=3.0,
        ),
    )
    parameters = GeneratorParameters(
        family="cogvideox", path="random/weights", revision="none", dtype="bfloat16", device=device
    )
    return CogVideoXGenerator(pipeline, parameters, "random weights")


def measured(device: str, *, tiny: bool, checkpointing: bool, compile_blocks: bool, steps: int) -> dict[str, Any]:
    """Seconds of the parts of a step and of whole steps, and peak memory in bytes (None without CUDA)."""
    from vr_pipeline.engine.config import LoRAParameters
    from vr_pipeline.engine.groups import Group
    from vr_pipeline.training.config import PreferenceTrainingParameters
    from vr_pipeline.training.pairs import PairData, TrainingPair
    from vr_pipeline.training.preference_trainer import prepare_weights
    from vr_pipeline.training.step import accumulate_gradients

    cuda = device.startswith("cuda")
    parameters = PreferenceTrainingParameters(
        batch_size=1,
        gradient_checkpointing=checkpointing,
        compile="blocks" if compile_blocks else "none",
        lora=LoRAParameters(rank=4 if tiny else RANK, alpha=64.0),
    )
    generator = random_generator(device, tiny=tiny)
    weights = prepare_weights(generator, parameters, Group())
    optimizer = torch.optim.AdamW(weights, lr=1e-6, fused=True)
    shape = (13, 16, 8, 8) if tiny else (13, 16, 60, 90)
    random = torch.Generator().manual_seed(0)
    latents = {name: torch.randn(shape, generator=random) for name in ("winner", "loser")}
    conditions = {"prompt": {"prompt_embeddings": torch.randn(1, 226, 4096, generator=random)}}
    pair = TrainingPair("pair", "prompt", "winner", "loser")
    data, place = PairData([pair], latents, conditions), torch.device(device)

    def wait() -> float:
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def whole(number: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        accumulate_gradients(generator, [(pair, number)], data, parameters)
        optimizer.step()

    both = torch.stack([latents["winner"], latents["loser"]]).to(place)
    noise, at = torch.randn_like(both[:1]).repeat(2, 1, 1, 1, 1), torch.tensor([500, 500], device=place)
    condition = {name: value.repeat(2, 1, 1).to(place) for name, value in conditions["prompt"].items()}

    def errors() -> torch.Tensor:
        with generator.autocast():
            return generator.prediction_error(both, noise, at, condition)

    whole(0)  # kernels are chosen, and compiled, in the first step
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    parts: dict[str, list[float]] = {"forward": [], "reference": [], "backward": [], "step": []}
    for number in range(1, steps + 1):
        start = wait()
        whole(number)
        parts["step"].append(wait() - start)
    peak = torch.cuda.max_memory_allocated() if cuda else None
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        start = wait()
        loss = errors().mean()
        forward = wait()
        loss.backward()
        backward = wait()
        with torch.no_grad(), generator.reference():
            errors()
        end = wait()
        for name, seconds in (("forward", forward - start), ("backward", backward - forward)):
            parts[name].append(seconds)
        parts["reference"].append(end - backward)
    return {name: statistics.median(values) for name, values in parts.items()} | {"peak_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="torch device of the measurement")
    parser.add_argument("--tiny", action="store_true", help="measure a tiny model, to try the code")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each setting")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS), help="what to calculate")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which needs a compiler")
    options = parser.parse_args()
    diffusers_logging.set_verbosity_error()

    figures: dict[str, Any] = {"calculated": {}, "measured": {}, "device": None}
    for name in options.models:
        sizes = calculated(name)
        figures["calculated"][name] = sizes
        print(f"{name}, {MODELS[name][2]}, one pair, rank {RANK}: calculated")
        weights = sizes["parameters"] * BYTES / 2**30
        print(f"  denoiser {sizes['parameters'] / 1e9:.2f} billion parameters, {weights:.1f} GiB")
        # Weights and gradients in float32 and the two moments of AdamW.
        state = sizes["adapter_parameters"] * 16 / 2**30
        print(f"  adapter {sizes['adapter_parameters'] / 1e6:.1f} million parameters, with optimiser {state:.2f} GiB")
        kept, checkpointed = sizes["activations"] / 2**30, sizes["activations_checkpointed"] / 2**30
        print(f"  activations kept: {kept:.1f} GiB; with checkpointing {checkpointed:.1f} GiB and those of one block")
        step = 2 * sizes["forward"] + sizes["backward"]
        shares = [100 * part / step for part in (sizes["forward"], sizes["forward"], sizes["backward"])]
        print(
            f"  operations of a pair: {step / 1e12:.0f} TFLOP (forward {shares[0]:.0f} %, reference {shares[1]:.0f} %, "
            f"backward {shares[2]:.0f} %); with checkpointing "
            f"{(2 * sizes['forward'] + sizes['backward_checkpointed']) / 1e12:.0f} TFLOP"
        )
        sizes |= calculated_encoding(name)
        prompt = f", a prompt {sizes['encode_prompt'] / 1e12:.1f} TFLOP" if "encode_prompt" in sizes else ""
        print(f"  encoding a clip: {sizes['encode_clip'] / 1e12:.1f} TFLOP{prompt}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("There is no GPU here: nothing was measured.")
    else:
        figures["device"] = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
        print(f"{'tiny model' if options.tiny else 'cogvideox_2b'} on {figures['device']}, one pair a step: measured")
        for compile_blocks in (False,) if options.no_compile else (False, True):
            for checkpointing in (False, True):
                setting = (
                    f"checkpointing {'on' if checkpointing else 'off'}, compile {'on' if compile_blocks else 'off'}"
                )
                try:
                    found = measured(
                        options.device,
                        tiny=options.tiny,
                        checkpointing=checkpointing,
                        compile_blocks=compile_blocks,
                        steps=options.steps,
                    )
                except torch.cuda.OutOfMemoryError:
                    print(f"  {setting}: out of memory")
                    figures["measured"][setting] = None
                    continue
                finally:
                    gc.collect()
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
                figures["measured"][setting] = found
                names = ("forward", "reference", "backward")
                total = sum(found[name] for name in names)
                parts = ", ".join(f"{name} {100 * found[name] / total:.0f} %" for name in names)
                peak = f"{found['peak_bytes'] / 2**30:.1f} GiB" if found["peak_bytes"] else "memory not measured"
                print(f"  {setting}: {found['step']:.2f} s a step, {peak}; {parts}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
