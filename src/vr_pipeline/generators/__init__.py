"""Generators behind one contract: sampling by seed, encoding, and the error that preference training needs."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vr_pipeline.generators.config import GeneratorParameters
    from vr_pipeline.generators.contract import Generator, Part

__all__ = ["FAMILIES", "family_of", "load_generator"]

FAMILIES = {
    "cogvideox": "vr_pipeline.generators.cogvideox:CogVideoXGenerator",
    "wan": "vr_pipeline.generators.wan:WanGenerator",
    "wan_experts": "vr_pipeline.generators.wan_experts:WanExpertsGenerator",
    "wan_i2v": "vr_pipeline.generators.wan_i2v:WanImageGenerator",
    "wan_i2v_experts": "vr_pipeline.generators.wan_i2v:WanImageExpertsGenerator",
    "cogvideox_i2v": "vr_pipeline.generators.cogvideox_i2v:CogVideoXImageGenerator",
    "hunyuan_video_1_5": "vr_pipeline.generators.hunyuan_video:HunyuanVideoGenerator",
    "ltx_2": "vr_pipeline.generators.ltx_2:LTX2Generator",
    "stable_diffusion_3": "vr_pipeline.generators.stable_diffusion_3:StableDiffusion3Generator",
    "qwen_image": "vr_pipeline.generators.qwen_image:QwenImageGenerator",
    "z_image": "vr_pipeline.generators.z_image:ZImageGenerator",
    "flux2_klein": "vr_pipeline.generators.flux2_klein:Flux2KleinGenerator",
    "sdxl": "vr_pipeline.generators.sdxl:StableDiffusionXLGenerator",
    "micro_world": "vr_pipeline.micro_world.generator:MicroWorldGenerator",
    "micro_wan": "vr_pipeline.micro_world.flow_generator:MicroWanGenerator",
}
"""Family name -> class. A new family is one module with a subclass of Generator and one line here."""


def family_of(name: str) -> type[Generator]:
    """Return the class of a family.

    Raises:
        InputError: there is no such family.
    """
    import pkgutil

    from vr_pipeline.errors import InputError

    if name not in FAMILIES:
        raise InputError(
            f"there is no generator family {name!r}",
            field="generator.family",
            remedy=f"choose one of {', '.join(sorted(FAMILIES))}",
        )
    return pkgutil.resolve_name(FAMILIES[name])  # type: ignore[no-any-return]


def load_generator(
    parameters: GeneratorParameters | dict[str, object], parts: Collection[Part] | None = None
) -> Generator:
    """Load the generator that the parameters describe.

    Args:
        parameters: the generator, also as a dictionary of its fields.
        parts: what is needed of it; None for all.

    Raises:
        InputError: if the family is unknown, the model cannot be found or is not of the family's kind, or its weights
            are not whole safetensors.
    """
    if isinstance(parameters, dict):
        from vr_pipeline.generators.config import GeneratorParameters

        parameters = GeneratorParameters.model_validate(parameters)
    family = family_of(parameters.family)
    return family.load(parameters) if parts is None else family.load(parameters, parts)
