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


MODELS: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, Any]], str]] = {
    "cogvideox_2b": (cogvideox, lambda: cogvideox_inputs(rotary=False), "49 x 480 x 720"),
    "cogvideox_5b": (
        lambda: cogvideox(num_attention_heads=48, num_layers=42, use_rotary_positional_embeddings=True),
        lambda: cogvideox_inputs(rotary=True),
        "49 x 480 x 720",
    ),
    "wan_2.1_1.3b": (wan, wan_inputs, "81 x 480 x 832"),
    "sdxl": (sdxl, sdxl_inputs, "1 x 1024 x 1024"),
}


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


ENCODERS: dict[str, tuple[Callable[[], Any], tuple[int, ...], Callable[[], Any] | None, int]] = {
    "cogvideox_2b": (cogvideox_autoencoder, (1, 3, 49, 480, 720), t5_xxl, 226),
    "cogvideox_5b": (cogvideox_autoencoder, (1, 3, 49, 480, 720), t5_xxl, 226),
    "wan_2.1_1.3b": (wan_autoencoder, (1, 3, 81, 480, 832), t5_xxl, 512),
    "sdxl": (sdxl_autoencoder, (1, 3, 1024, 1024), None, 0),
}
"""Autoencoder and the shape of a clip; text encoder and the tokens of a prompt (those of SDXL are small)."""


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
    with torch.device("meta"), counted_attention():
        network = build().to(torch.bfloat16)
        figures["parameters"] = sum(value.numel() for value in network.parameters())
        network.requires_grad_(False)
        network.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LORA_TARGETS))
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
            loss = out.float().pow(2).mean()
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
