"""One step of preference training on CogVideoX of middling size with random weights, on CPUs.

Ours: latents and texts encoded once and the encoders freed, winner and loser in one batch, the reference being the same
network with its adapter off. Compared in the same process with

- the usual way: policy and reference as two models, winner and loser in passes of their own, autoencoder and text
  encoder in the loop;
- adapter off for the reference and one batch, but autoencoder and text encoder in the loop, as published low-rank
  training scripts have it.

A fourth way, ours with the original's errors kept from an earlier step (``reference_draws``), says what that saves.

All train the same adapter with the same optimiser on the same pair. Memory is the highest resident set while steps run
less what the imports alone take, each way in a process of its own, since memory once touched is not given back.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from vr_pipeline.engine.config import LoRAParameters
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import ALL_PARTS, Condition, Generator, Part
from vr_pipeline.runtime.memory import STATUS, peak_memory
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.losses import diffusion_dpo_loss
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.references import ReferenceErrors
from vr_pipeline.training.step import accumulate_gradients

FRAMES, HEIGHT, WIDTH = 9, 64, 96
TEXT_LENGTH = 64
PROMPT = "red ball moves left on black"
WAYS = ("ours", "kept", "usual", "in_the_loop")


def save_model(folder: Path, *, layers: int, heads: int) -> None:
    """Published classes, fewer and narrower layers; parameters are random."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    from vr_pipeline.micro_world.pretraining import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    text_encoder = T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=512, d_kv=64, d_ff=2048, num_layers=12, num_heads=8)
    )
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(16, 32, 32, 64),
        latent_channels=16,
        layers_per_block=2,
        norm_num_groups=8,
    )
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=64,
        in_channels=16,
        out_channels=16,
        text_embed_dim=512,
        num_layers=layers,
        sample_height=HEIGHT // 8,
        sample_width=WIDTH // 8,
        sample_frames=FRAMES,
        max_text_seq_length=TEXT_LENGTH,
    )
    scheduler = CogVideoXDDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=3.0,
        timestep_spacing="trailing",
    )
    CogVideoXPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
    ).save_pretrained(folder)


def load(folder: Path, *parts: Part) -> Generator:
    return load_generator(
        GeneratorParameters(
            family="cogvideox", path=str(folder), device="cpu", num_frames=FRAMES, height=HEIGHT, width=WIDTH
        ),
        parts,
    )


def make_clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)


def trained(generator: Generator, parameters: PreferenceTrainingParameters) -> tuple[list[Any], torch.optim.AdamW]:
    lora = parameters.lora
    weights = generator.add_adapter(rank=lora.rank, alpha=lora.alpha, targets=lora.target_modules, seed=0)
    return weights, torch.optim.AdamW(weights, lr=parameters.learning_rate, fused=True)


def make_step(way: str, folder: Path, parameters: PreferenceTrainingParameters) -> Callable[[int], float]:
    """A function that makes one step, given its number, and returns the loss."""
    clips = make_clips()
    pair = TrainingPair("pair", PROMPT, "winner", "loser")
    light = way in ("ours", "kept")
    if light:
        encoded = load(folder, "autoencoder").encode_frames(clips)
        latents = {"winner": encoded[0], "loser": encoded[1]}
        conditions: dict[str, Condition] = {PROMPT: load(folder, "text_encoder").encode_prompts([PROMPT])}
        data = PairData([pair], latents, conditions)
    generator = load(folder, "denoiser") if light else load(folder, *ALL_PARTS)
    reference = copy.deepcopy(generator.denoiser) if way == "usual" else None
    weights, optimizer = trained(generator, parameters)
    policy = generator.denoiser

    def finish(loss: torch.Tensor) -> float:
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return loss.item()

    draws_once = parameters.model_copy(update={"reference_draws": 1})
    kept_errors = ReferenceErrors(generator, data, draws_once, None) if way == "kept" else None

    def kept(step: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        assert kept_errors is not None
        loss, _ = accumulate_gradients(generator, [(pair, step)], data, draws_once, references=kept_errors.of)
        return finish(loss)

    def ours(step: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss, _ = accumulate_gradients(generator, [(pair, step)], data, parameters)
        return finish(loss)

    def draw(step: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        random = torch.Generator().manual_seed(step)
        return torch.randn(like.shape, generator=random), generator.draw_timesteps(1, random)

    def in_the_loop(step: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        encoded = generator.encode_frames(clips)
        condition = generator.encode_prompts([PROMPT, PROMPT])
        noise, timestep = draw(step, encoded[:1])
        arguments = (encoded, noise.repeat(2, 1, 1, 1, 1), timestep.repeat(2), condition)
        winner, loser = generator.prediction_error(*arguments).chunk(2)
        with torch.no_grad(), generator.reference():
            winner_reference, loser_reference = generator.prediction_error(*arguments).chunk(2)
        loss, _ = diffusion_dpo_loss(winner, loser, winner_reference, loser_reference, parameters.beta)
        loss.backward()
        return finish(loss.detach())

    def usual(step: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        errors, references = [], []
        drawn: tuple[torch.Tensor, torch.Tensor] | None = None
        for clip in clips:
            encoded = generator.encode_frames(clip[None])
            condition = generator.encode_prompts([PROMPT])
            drawn = drawn or draw(step, encoded)
            errors.append(generator.prediction_error(encoded, *drawn, condition))
            with torch.no_grad():
                generator.pipeline.transformer = reference  # type: ignore[attr-defined]
                references.append(generator.prediction_error(encoded, *drawn, condition))
                generator.pipeline.transformer = policy  # type: ignore[attr-defined]
        loss, _ = diffusion_dpo_loss(errors[0], errors[1], references[0], references[1], parameters.beta)
        loss.backward()
        return finish(loss.detach())

    return {"ours": ours, "kept": kept, "usual": usual, "in_the_loop": in_the_loop}[way]


def highest_resident_mb(*, reset: bool = False) -> float:
    """Highest resident set since the start, or since the last reset where the system can reset it."""
    if reset and STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")
    return peak_memory() / 2**20


def measure_memory(way: str, folder: Path, parameters: PreferenceTrainingParameters) -> float:
    """Highest resident set during two steps, in MiB above the imports'."""
    before = highest_resident_mb()
    step = make_step(way, folder, parameters)
    highest_resident_mb(reset=True)
    for number in range(2):
        step(number)
    return highest_resident_mb() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--heads", type=int, default=8, help="attention heads of 64 channels")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-of", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    parameters = PreferenceTrainingParameters(
        beta=500.0, learning_rate=1e-5, batch_size=1, steps=1, lora=LoRAParameters(rank=16, alpha=16.0)
    )
    if options.memory_of:
        print(measure_memory(options.memory_of, options.folder, parameters))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder, layers=options.layers, heads=options.heads)
        steps = {way: make_step(way, folder, parameters) for way in WAYS}
        first = {way: steps[way](0) for way in WAYS}
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        processor: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(1, options.steps + 1):
            # In turn, so that other programs on the machine slow all of them alike.
            for way in WAYS:
                start, processor_start = time.perf_counter(), time.process_time()
                steps[way](number)
                seconds[way].append(time.perf_counter() - start)
                processor[way].append(time.process_time() - processor_start)
        size = sum(value.numel() for value in load(folder, "denoiser").denoiser.parameters())
        memory = {
            way: float(
                subprocess.run(
                    [sys.executable, __file__, "--memory-of", way, "--folder", name, "--threads", str(options.threads)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.split()[-1]
            )
            for way in WAYS
        }
    median = {way: statistics.median(seconds[way]) for way in WAYS}
    # Other programs lengthen the time on the clock much more than the processor's.
    busy = {way: statistics.median(processor[way]) for way in WAYS}
    print(f"transformer with {size / 1e6:.0f} million parameters, one pair a step, {options.threads} threads")
    for way in WAYS:
        times = f"{median[way]:7.2f} s a step, {busy[way]:7.2f} s of processor time"
        print(f"{way:12s} {times}   {memory[way]:7.0f} MiB   first loss {first[way]:.6f}")
    print(
        json.dumps(
            {
                "parameters_millions": round(size / 1e6, 1),
                "seconds": {way: round(value, 3) for way, value in median.items()},
                "peak_mb": {way: round(value) for way, value in memory.items()},
                "processor_seconds": {way: round(value, 3) for way, value in busy.items()},
                "ratio": round(busy["usual"] / busy["ours"], 2),
                "memory_ratio": round(memory["ours"] / memory["usual"], 3),
                "ratio_kept": round(busy["usual"] / busy["kept"], 2),
                "saved_by_keeping": round(1.0 - busy["kept"] / busy["ours"], 3),
                "ratio_in_the_loop": round(busy["in_the_loop"] / busy["ours"], 2),
                "memory_ratio_in_the_loop": round(memory["ours"] / memory["in_the_loop"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
