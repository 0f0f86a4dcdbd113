"""Every family of generators with tiny random models of its published classes: what the conformance suite is given.

A family is how to build its tiny model, its settings, and what a user of diffusers passes to its pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tiny_flow_models as flows
import tiny_models as models
from vr_pipeline.generators import family_of
from vr_pipeline.generators.config import GeneratorParameters

Rejected = tuple[str, int, str]
"""A setting, a value that the model cannot make, and a part of the remedy."""


@dataclass(frozen=True)
class Family:
    """A tiny model and its settings.

    Attributes:
        save: builds the model in a folder, in diffusers layout.
        family: its key of ``vr_pipeline.generators.FAMILIES``.
        changes: settings that are not the common ones.
        other_size: another size that the model can make too.
        rejected: sizes that it cannot make.
        shift: how far its schedule leans towards noise; None where it is none of a flow, or depends on the size.
        given_frames: latent frames at the start that the condition fixes.
        as_trained: makes a pipeline of diffusers call its network as training does.
    """

    save: Callable[[Path], Path]
    family: str
    changes: dict[str, Any] = field(default_factory=dict)
    other_size: dict[str, int] = field(default_factory=lambda: {"height": 32, "width": 48})
    rejected: tuple[Rejected, ...] = ()
    shift: float | None = None
    given_frames: int = 0
    as_trained: Callable[[Any], None] = lambda pipeline: None

    def parameters(self, folder: Path) -> GeneratorParameters:
        """Settings of the model, built in the folder."""
        return models.cogvideox_parameters(self.save(folder), family=self.family, **self.changes)


def without_sound(pipeline: Any) -> None:
    """Have the network of LTX-2 ignore its audio stream."""
    network = pipeline.transformer
    network.forward = partial(_isolated, network.forward)


def _isolated(forward: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    return forward(*arguments, **(keywords | {"isolate_modalities": True}))


_MICRO = {"num_frames": 8, "height": 16, "width": 16, "num_inference_steps": 3, "guidance_scale": 1.0}
_IMAGE: dict[str, Any] = {"num_frames": 1}
_ONE_IMAGE = {"batch_size": 1}
_ALONE = {"num_frames": 1, "batch_size": 1}
_WITH_SOUND = {"height": 64, "width": 64, "fps": 24}
_OTHER_WITH_SOUND = {"height": 64, "width": 96, "num_frames": 17}
_SIDES: tuple[Rejected, ...] = (("height", 24, "16 or 32"), ("width", 8, "Choose 16"))

FAMILIES: dict[str, Family] = {
    "cogvideox_2b": Family(
        partial(models.save_cogvideox, rotary=False),
        "cogvideox",
        other_size={"height": 32, "width": 48, "num_frames": 17},
        rejected=(("num_frames", 5, "1 or 9"), ("num_frames", 8, "1 or 9"), *_SIDES),
    ),
    "cogvideox_5b": Family(
        partial(models.save_cogvideox, rotary=True),
        "cogvideox",
        other_size={"height": 32, "width": 48, "num_frames": 17},
        rejected=(("num_frames", 13, "9 or 17"), *_SIDES),
    ),
    "cogvideox_1_5": Family(
        partial(models.save_cogvideox, rotary=True, patch_size_t=2),
        "cogvideox",
        other_size={"height": 32, "width": 48, "num_frames": 17},
        rejected=(("num_frames", 13, "9 or 17"), ("width", 64, "smaller width"), *_SIDES),
    ),
    "micro_world": Family(
        models.save_micro_world,
        "micro_world",
        _MICRO,
        other_size={"height": 32, "width": 48, "num_frames": 4},
        rejected=(("num_frames", 7, "4 or 8"),),
    ),
    "wan": Family(
        models.save_wan,
        "wan",
        other_size={"height": 32, "width": 48, "num_frames": 5},
        rejected=(
            ("num_frames", 80, "77 or 81"),
            ("num_frames", 129, "Choose a smaller num_frames"),
            ("width", 528, "Choose a smaller width"),
            ("height", 40, "32 or 48"),
            ("width", 8, "Choose 16"),
        ),
        shift=3.0,
    ),
    "wan_2_2_5b": Family(
        partial(models.save_wan, five_billion=True),
        "wan",
        other_size={"height": 32, "width": 64, "num_frames": 5},
        rejected=(("num_frames", 80, "77 or 81"), ("height", 48, "32 or 64")),
        shift=3.0,
    ),
    "wan_2_2_a14b": Family(
        partial(models.save_wan, experts=True),
        "wan_experts",
        other_size={"height": 32, "width": 48, "num_frames": 5},
        rejected=(("num_frames", 80, "77 or 81"), ("height", 40, "32 or 48")),
        shift=3.0,
    ),
    "wan_2_1_i2v": Family(
        partial(models.save_wan, image=True),
        "wan_i2v",
        _ONE_IMAGE,
        other_size={"height": 32, "width": 48, "num_frames": 5},
        rejected=(("num_frames", 80, "77 or 81"), ("num_frames", 1, "5 or more"), ("batch_size", 2, "Choose 1")),
        shift=3.0,
    ),
    "wan_2_2_i2v_a14b": Family(
        partial(models.save_wan, image=True, experts=True),
        "wan_i2v_experts",
        _ONE_IMAGE,
        other_size={"height": 32, "width": 48, "num_frames": 5},
        rejected=(("height", 40, "32 or 48"), ("batch_size", 2, "Choose 1")),
        shift=3.0,
    ),
    "wan_2_2_ti2v_5b": Family(
        partial(models.save_wan, five_billion=True),
        "wan_i2v",
        _ONE_IMAGE,
        other_size={"height": 32, "width": 64, "num_frames": 5},
        rejected=(("num_frames", 1, "5 or more"), ("height", 48, "32 or 64"), ("batch_size", 2, "Choose 1")),
        shift=3.0,
        given_frames=1,
    ),
    "cogvideox_5b_i2v": Family(
        partial(models.save_cogvideox, rotary=True, image=True),
        "cogvideox_i2v",
        other_size={},
        rejected=(("num_frames", 17, "Choose 9"), ("width", 48, "Choose 32")),
    ),
    "cogvideox_1_5_i2v": Family(
        partial(models.save_cogvideox, rotary=True, patch_size_t=2, image=True),
        "cogvideox_i2v",
        other_size={"height": 32, "width": 48, "num_frames": 17},
        rejected=(("num_frames", 13, "9 or 17"), ("width", 64, "smaller width")),
    ),
    "hunyuan_video_1_5": Family(
        flows.save_hunyuan_video,
        "hunyuan_video_1_5",
        {"height": 16, "width": 16, "batch_size": 1},
        other_size={"height": 16, "width": 24, "num_frames": 5},
        rejected=(("num_frames", 80, "77 or 81"), ("height", 18, "16 or 20")),
        shift=5.0,
    ),
    "ltx_2": Family(
        flows.save_ltx_2,
        "ltx_2",
        _WITH_SOUND,
        _OTHER_WITH_SOUND,
        rejected=(("num_frames", 24, "17 or 25"), ("height", 48, "32 or 64"), ("fps", 8, "Set it to 24")),
        as_trained=without_sound,
    ),
    "ltx_2_3": Family(
        partial(flows.save_ltx_2, version="2.3"), "ltx_2", _WITH_SOUND, _OTHER_WITH_SOUND, as_trained=without_sound
    ),
    "micro_wan": Family(models.save_micro_wan, "micro_wan", _MICRO, rejected=(("num_frames", 7, "4 or 8"),), shift=3.0),
    "sdxl": Family(models.save_sdxl, "sdxl", _IMAGE, rejected=()),
    "stable_diffusion_3": Family(
        flows.save_stable_diffusion_3,
        "stable_diffusion_3",
        _IMAGE,
        rejected=(("width", 34, "32 or 36"), ("height", 56, "Choose a smaller height")),
        shift=3.0,
    ),
    "qwen_image": Family(
        flows.save_qwen_image, "qwen_image", _ALONE, rejected=(("width", 34, "32 or 36"), ("batch_size", 2, "Choose 1"))
    ),
    "z_image": Family(
        flows.save_z_image,
        "z_image",
        _ALONE,
        rejected=(("width", 34, "32 or 36"), ("height", 72, "smaller height"), ("batch_size", 2, "Choose 1")),
        shift=6.0,
    ),
    "flux2_klein": Family(flows.save_flux2_klein, "flux2_klein", _IMAGE, rejected=(("width", 34, "32 or 36"),)),
}
"""Each published model that a class reads in its own way; a new family is one entry."""


def images_for(family: str, prompts: Sequence[str]) -> list[NDArray[np.uint8]] | None:
    """The image of each prompt where clips of the family start from one, else None."""
    if not family_of(family).takes_image:
        return None
    frames = models.first_frames(len(models.PROMPTS))
    return [frames[models.PROMPTS.index(prompt) if prompt in models.PROMPTS else 0] for prompt in prompts]
