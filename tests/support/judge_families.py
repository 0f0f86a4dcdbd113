"""Every family of judges with a tiny random model of its class: what the conformance suite is given.

A family is how to build its tiny model, and what its own processors make of an image and of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name
from typing import Any

import numpy as np

import tiny_judges as models
from vr_pipeline.vlm.families.base import Family

Arrays = dict[str, np.ndarray]
Official = Callable[[Family, np.ndarray], Arrays]
"""A family and uint8 frames [frames, height, width, 3] -> arrays under the names that the family gives them."""


@dataclass(frozen=True)
class Pixels:
    """What the official processors make of pictures.

    Attributes:
        image: of one frame.
        clip: of all frames; it needs torchvision.
        sizes: the model's input sizes while pixels are compared, by dotted place in its configuration.
        settings: with which images are compared.
    """

    image: Official
    clip: Official
    sizes: Mapping[str, Any]
    settings: tuple[dict[str, Any], ...] = ({},)


@dataclass(frozen=True)
class JudgeFamily:
    """A tiny model and its official processors.

    Attributes:
        build: makes the tiny model around a tokenizer.
        pixels: of its official processors.
        family: its key of ``vr_pipeline.vlm.families.FAMILIES``; None where it is the entry's own name.
        elongated: whether a frame of any shape is taken.
        one_length: whether the plain class takes several clips only if they have the same number of frames.
    """

    build: Callable[[Any], Family]
    pixels: Pixels
    family: str | None = None
    elongated: bool = True
    one_length: bool = False


def processor(path: str, family: Family, **options: Any) -> Any:
    """A processor of transformers, with the means that checkpoints name where they are not its defaults."""
    return resolve_name(f"transformers.models.{path}")(
        image_mean=family.settings.mean, image_std=family.settings.std, **options
    )


def _patch_sizes(family: Family) -> dict[str, int]:
    vision = family.model.config.vision_config
    return {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
    }


def _patches(found: Any, pixels: str, grid: str) -> Arrays:
    return {"patches": np.asarray(found[pixels]), "grid": np.asarray(found[grid])}


def _frames(clip: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(clip).permute(0, 3, 1, 2)


def _patch_image(path: str, **limits: int) -> Official:
    def official(family: Family, image: np.ndarray) -> Arrays:
        options = {"size": limits} if limits else {}
        made = processor(path, family, **options, **_patch_sizes(family))
        return _patches(made(images=[image[0]], return_tensors="np"), "pixel_values", "image_grid_thw")

    return official


def _patch_clip(path: str, *, cap: bool = True, **limits: int) -> Official:
    def official(family: Family, clip: np.ndarray) -> Arrays:
        options: dict[str, Any] = ({"size": limits} if limits else {}) | ({"cap_pixels_per_frame": True} if cap else {})
        made = processor(path, family, do_sample_frames=False, **options, **_patch_sizes(family))
        found = made(videos=[_frames(clip)], return_metadata=False, return_tensors="np")
        return _patches(found, "pixel_values_videos", "video_grid_thw")

    return official


def _tiles(family: Family) -> int:
    size = family.model.config.vision_config.image_size
    return int(size if isinstance(size, int) else size[0])


def _square_clip(path: str, name: str) -> Official:
    def official(family: Family, clip: np.ndarray) -> Arrays:
        size = _tiles(family)
        made = processor(path, family, size={"height": size, "width": size})
        found = made(videos=[_frames(clip)], do_sample_frames=False, return_tensors="np")["pixel_values_videos"]
        return {name: found if name == "pixel_values_videos" else found[0]}

    return official


def llava_image(family: Family, image: np.ndarray) -> Arrays:
    path = "llava_onevision.image_processing_pil_llava_onevision:LlavaOnevisionImageProcessorPil"
    size = _tiles(family)
    grids = family.model.config.image_grid_pinpoints
    made = processor(path, family, size={"height": size, "width": size}, image_grid_pinpoints=grids)
    found = made(images=[image[0]], return_tensors="np")
    return {"pixel_values": found["pixel_values"], "image_sizes": found["image_sizes"]}


def internvl_image(family: Any, image: np.ndarray) -> Arrays:
    path = "got_ocr2.image_processing_pil_got_ocr2:GotOcr2ImageProcessorPil"
    size, settings = _tiles(family), family.settings
    options = {"crop_to_patches": settings.tile_images, "max_patches": settings.max_tiles}
    made = processor(path, family, size={"height": size, "width": size}, **options)
    return {"pixel_values": made(images=[image[0]], return_tensors="np")["pixel_values"]}


def smolvlm_image(family: Any, image: np.ndarray) -> Arrays:
    path = "smolvlm.image_processing_pil_smolvlm:SmolVLMImageProcessorPil"
    size, settings = _tiles(family), family.settings
    longest = {"longest_edge": size * settings.image_side_tiles}
    made = processor(path, family, size=longest, max_image_size={"longest_edge": size})
    found = made(images=[image[0]], do_image_splitting=settings.tile_images, return_tensors="np")
    return {"pixel_values": found["pixel_values"]}


def smolvlm_clip(family: Family, clip: np.ndarray) -> Arrays:
    path = "smolvlm.video_processing_smolvlm:SmolVLMVideoProcessor"
    longest = {"longest_edge": _tiles(family)}
    made = processor(path, family, size=longest, max_image_size=longest)
    return {"pixel_values": made(videos=[_frames(clip)], do_sample_frames=False, return_tensors="np")["pixel_values"]}


_QWEN2_IMAGE = "qwen2_vl.image_processing_pil_qwen2_vl:Qwen2VLImageProcessorPil"
_QWEN2 = Pixels(
    _patch_image(_QWEN2_IMAGE),
    _patch_clip("qwen2_vl.video_processing_qwen2_vl:Qwen2VLVideoProcessor"),
    {"vision_config.patch_size": 14},
)
# The limits are those of the checkpoints, which differ from the classes' own.
_QWEN3 = Pixels(
    _patch_image(_QWEN2_IMAGE, shortest_edge=65_536, longest_edge=16_777_216),
    _patch_clip(
        "qwen3_vl.video_processing_qwen3_vl:Qwen3VLVideoProcessor", shortest_edge=4096, longest_edge=25_165_824
    ),
    {"vision_config.patch_size": 16},
)
_GLM = Pixels(
    _patch_image("glm46v.image_processing_pil_glm46v:Glm46VImageProcessorPil"),
    _patch_clip("glm46v.video_processing_glm46v:Glm46VVideoProcessor", cap=False),
    {"vision_config.patch_size": 14},
)
_LLAVA = Pixels(
    llava_image,
    _square_clip(
        "llava_onevision.video_processing_llava_onevision:LlavaOnevisionVideoProcessor", "pixel_values_videos"
    ),
    {
        "vision_config.image_size": 48,
        "image_grid_pinpoints": [[48 * rows, 48 * columns] for rows in range(1, 5) for columns in range(1, 5)],
    },
)
_INTERNVL = Pixels(
    internvl_image,
    _square_clip("internvl.video_processing_internvl:InternVLVideoProcessor", "pixel_values"),
    {"vision_config.image_size": [48, 48]},
    ({}, {"tile_images": False}),
)
_SMOLVLM = Pixels(
    smolvlm_image,
    smolvlm_clip,
    {"vision_config.image_size": 48},
    ({}, {"image_side_tiles": 1}, {"tile_images": False}),
)

FAMILIES: dict[str, JudgeFamily] = {
    "qwen2_vl": JudgeFamily(models.qwen2_vl, _QWEN2, elongated=False),
    "qwen2_5_vl": JudgeFamily(models.qwen2_5_vl, _QWEN2, elongated=False),
    "qwen3_vl": JudgeFamily(models.qwen3_vl, _QWEN3, elongated=False),
    "qwen3_5": JudgeFamily(models.qwen3_5, _QWEN3, elongated=False),
    "glm_4_6v": JudgeFamily(models.glm_4_6v, _GLM, elongated=False),
    "llava_onevision": JudgeFamily(models.llava_onevision, _LLAVA, one_length=True),
    "internvl": JudgeFamily(models.internvl, _INTERNVL),
    "internvl_3_5": JudgeFamily(partial(models.internvl, language="qwen3"), _INTERNVL, family="internvl"),
    "smolvlm": JudgeFamily(models.smolvlm, _SMOLVLM),
}
"""Each class of models that a family reads in its own way; a new family is one entry."""
