"""Generators behind one contract: sampling by seed, encoding, and the error that preference training needs."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vr_pipeline.generators.config import GeneratorParameters
    from vr_pipeline.generators.contract import Generator, Part

__all__ = ["FAMILIES", "load_generator"]

FAMILIES = {
    "cogvideox": "vr_pipeline.generators.cogvideox:CogVideoXGenerator",
    "wan": "vr_pipeline.generators.wan:WanGenerator",
    "sdxl": "vr_pipeline.generators.sdxl:StableDiffusionXLGenerator",
    "micro_world": "vr_pipeline.micro_world.generator:MicroWorldGenerator",
}
"""Family name to class. A new family is one module with a subclass of Generator and one line here."""


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
    import pkgutil

    from vr_pipeline.errors import InputError

    if isinstance(parameters, dict):
        from vr_pipeline.generators.config import GeneratorParameters

        parameters = GeneratorParameters.model_validate(parameters)
    if parameters.family not in FAMILIES:
        raise InputError(
            f"there is no generator family {parameters.family!r}",
            field="generator.family",
            remedy=f"choose one of {', '.join(sorted(FAMILIES))}",
        )
    family: type[Generator] = pkgutil.resolve_name(FAMILIES[parameters.family])
    return family.load(parameters) if parts is None else family.load(parameters, parts)
