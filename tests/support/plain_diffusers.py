"""Pipelines of diffusers used as their documentation shows, to hold generators against."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from PIL import Image

from generator_families import images_for
from vr_pipeline.generators import family_of
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.micro_world.patch_vae import PatchVAE, WanPatchVAE
from vr_pipeline.video.fit import cover


def plain_pipeline(parameters: GeneratorParameters) -> Any:
    """The pipeline as a user of diffusers would load it."""
    import diffusers

    vae = {"micro_world": PatchVAE, "micro_wan": WanPatchVAE}.get(parameters.family)
    # A tiny model may be stored in half precision.
    own = {} if vae is None else {"vae": vae.from_pretrained(f"{parameters.path}/vae", torch_dtype=torch.float32)}
    family = family_of(parameters.family)
    # A model may be published as a pipeline from text and be used as one from an image.
    kind = getattr(diffusers, family.pipeline_class) if family.takes_image else diffusers.DiffusionPipeline
    pipeline = kind.from_pretrained(parameters.path, torch_dtype=torch.float32, **own)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _text_of_cogvideox(pipeline: Any, parameters: GeneratorParameters) -> dict[str, Any]:
    return {"max_sequence_length": pipeline.transformer.config.max_text_seq_length, "num_frames": parameters.num_frames}


_OWN: dict[str, Callable[[Any, GeneratorParameters], dict[str, Any]]] = {
    "CogVideoXPipeline": _text_of_cogvideox,
    "CogVideoXImageToVideoPipeline": _text_of_cogvideox,
    "WanImageToVideoPipeline": lambda _, parameters: {"num_frames": parameters.num_frames},
    "WanPipeline": lambda _, parameters: {"num_frames": parameters.num_frames},
    "micro_wan": lambda pipeline, parameters: {
        "max_sequence_length": pipeline.tokenizer.model_max_length,
        "num_frames": parameters.num_frames,
    },
    "HunyuanVideo15Pipeline": lambda _, parameters: {"num_frames": parameters.num_frames},
    "LTX2Pipeline": lambda _, parameters: {
        **{"num_frames": parameters.num_frames, "stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0},
        **{"audio_guidance_scale": parameters.guidance_scale, "audio_stg_scale": 0.0, "audio_modality_scale": 1.0},
        "audio_guidance_rescale": 0.0,
    },
    "QwenImagePipeline": lambda _, parameters: (
        {"true_cfg_scale": parameters.guidance_scale, "negative_prompt": " ", "guidance_scale": None}
        if parameters.guidance_scale > 1
        else {"guidance_scale": None}
    ),
    "ZImagePipeline": lambda _, parameters: {"guidance_scale": parameters.guidance_scale - 1},
}
"""What a user passes to a pipeline, or to that of a family, beside the common arguments."""


def call_directly(pipeline: Any, parameters: GeneratorParameters, seeds: list[int], prompts: list[str]) -> np.ndarray:
    """Sample with the pipeline of diffusers alone, as its documentation shows; uint8 clips."""
    made = []
    for start in range(0, len(prompts), parameters.batch_size):
        part = slice(start, start + parameters.batch_size)
        arguments: dict[str, Any] = {"guidance_scale": parameters.guidance_scale}
        own = _OWN.get(parameters.family) or _OWN.get(type(pipeline).__name__, lambda _, __: {})
        arguments |= own(pipeline, parameters)
        if images := images_for(parameters.family, prompts[part]):
            pictures = [Image.fromarray(cover(one, parameters.height, parameters.width)) for one in images]
            arguments["image"] = pictures[0] if len(pictures) == 1 else pictures
        if (guider := getattr(pipeline, "guider", None)) is not None:
            pipeline.guider = guider.new(guidance_scale=arguments.pop("guidance_scale"))
        output = pipeline(
            prompt=list(prompts[part]),
            height=parameters.height,
            width=parameters.width,
            num_inference_steps=parameters.num_inference_steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds[part]],
            output_type="np",
            **arguments,
        )
        made.append(output.frames if hasattr(output, "frames") else output.images[:, None])
    return np.round(np.concatenate(made) * 255).astype(np.uint8)


def without_draws_of_latents(pipeline: Any) -> Any:
    """The pipeline with the mode of an image's latents in place of a sample of them."""
    encode = pipeline.vae.encode

    def encoded(*arguments: Any, **options: Any) -> Any:
        made = encode(*arguments, **options)
        if isinstance(made, AutoencoderKLOutput):
            distribution = made.latent_dist
            distribution.sample = lambda generator=None: distribution.mode()
        return made

    pipeline.vae.encode = encoded
    return pipeline


def load_adapter_directly(pipeline: Any, folder: Path) -> None:
    """Load a policy's adapter as its card says."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    said = [line for line in lines if re.match(r"pipeline\.(\w+\.)?load_lora_", line)]
    assert said
    for line in said:
        exec(line.replace("THIS_FOLDER", str(folder)), {"pipeline": pipeline})


@dataclass(frozen=True)
class Step:
    """One step of a scheduler: what it was given."""

    prediction: torch.Tensor
    timestep: torch.Tensor
    sample: torch.Tensor
    scaled: torch.Tensor
    """The sample as the network is given it."""


@contextlib.contextmanager
def recorded(scheduler: Any, instead: torch.Tensor | None = None) -> Iterator[list[Step]]:
    """Record the steps of a scheduler within a block; with ``instead`` every step ends there."""
    kind, seen = type(scheduler), list[Step]()
    step = kind.step
    signature = inspect.signature(step)

    @functools.wraps(step)
    def recording(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if self is not scheduler:  # a copy, for the sound
            return step(self, *arguments, **keywords)
        given = signature.bind(self, *arguments, **keywords).arguments
        scale = getattr(scheduler, "scale_model_input", lambda sample, _: sample)
        sample, timestep = given["sample"], given["timestep"]
        scaled = scale(sample, timestep)
        seen.append(Step(given["model_output"].clone(), timestep, sample.clone(), scaled.clone()))
        made = step(self, *arguments, **keywords)
        return made if instead is None else (instead, *made[1:])

    scheduler.__class__ = type(kind.__name__, (kind,), {"step": recording})
    try:
        yield seen
    finally:
        scheduler.__class__ = kind


class Packing:
    """How a pipeline lays out latents: learnt from noise, which it draws as we do, before it packs it.

    Args:
        theirs: the first noise as a pipeline's scheduler is given it, of one clip.
        ours: the same numbers as latents.
        scale: what the scheduler multiplies noise by.
    """

    def __init__(self, theirs: torch.Tensor, ours: torch.Tensor, scale: float = 1.0) -> None:
        self._theirs, self._ours = theirs.flatten().argsort(stable=True), ours.flatten().argsort(stable=True)
        self._shapes = theirs.shape, ours.shape
        same = theirs.flatten()[self._theirs], ours.flatten()[self._ours] * scale
        torch.testing.assert_close(*same, rtol=1e-6, atol=0, msg="the pipeline draws other noise")

    def to_theirs(self, latents: torch.Tensor) -> torch.Tensor:
        packed = torch.empty_like(latents).flatten()
        packed[self._theirs] = latents.flatten()[self._ours]
        return packed.view(self._shapes[0])

    def to_ours(self, packed: torch.Tensor) -> torch.Tensor:
        latents = torch.empty_like(packed).flatten()
        latents[self._ours] = packed.flatten()[self._theirs]
        return latents.view(self._shapes[1])
