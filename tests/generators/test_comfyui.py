"""Adapters as ComfyUI reads them, against the readers and converters of such files in diffusers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders import lora_conversion_utils as conversions
from safetensors.torch import load_file

from generator_families import FAMILIES
from plain_diffusers import plain_pipeline
from vr_pipeline.datasets.policy import PolicyDataset
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.comfyui import NAMES, READERS, comfyui_tensors
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.policy import Adapter

Tensors = dict[str, torch.Tensor]
RANK, ALPHA = 2, 7.0
EXPORTED = [name for name, family in FAMILIES.items() if family.family in NAMES]


def as_hunyuan(tensors: Tensors) -> Tensors:
    """The names of the first HunyuanVideo, which ComfyUI takes for the same."""
    old = {name.replace("_attn.", "_attn_"): value for name, value in tensors.items()}
    # Of the text's layers the converter cuts A in three, too; each of them needs all of it.
    whole = {name: torch.cat([one] * 3) if "self_attn_qkv.lora_A" in name else one for name, one in old.items()}
    return conversions._convert_hunyuan_video_lora_to_diffusers(whole)  # type: ignore[no-any-return]


CONVERTERS: dict[str, Callable[[Tensors], Tensors]] = {
    "hunyuan_video_1_5": as_hunyuan,
    "ltx_2": conversions._convert_non_diffusers_ltx2_lora_to_diffusers,
    # ComfyUI maps the names of diffusers to slices of its own layers (mmdit_to_diffusers, flux_to_diffusers).
    "stable_diffusion_3": dict,
    "flux2_klein": dict,
}
"""Where the loader in diffusers reads no alpha, its conversion of names; the others load the file."""


@pytest.fixture(params=EXPORTED)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def adapted(parameters: GeneratorParameters, **settings: Any) -> tuple[Any, Adapter]:
    """A generator with a random adapter, and the adapter with what its training says of the model."""
    generator: Any = load_generator(parameters, ("denoiser",))
    random = torch.Generator().manual_seed(0)
    for value in generator.add_adapter(**({"rank": RANK, "alpha": ALPHA, "targets": None, "seed": 0} | settings)):
        value.data += torch.randn(value.shape, generator=random)
    return generator, replace(generator.policy(), provenance={"base": {"family": parameters.family, "path": "model"}})


def products(network: Any) -> Tensors:
    """What an adapter adds to each layer's weights."""
    return {
        name: module.scaling[key] * module.lora_B[key].weight.detach() @ module.lora_A[key].weight.detach()
        for name, module in network.named_modules()
        if hasattr(module, "lora_B")
        for key in module.lora_B
    }


def as_comfyui_reads(file: Path, convert: Callable[[Tensors], Tensors]) -> Tensors:
    """alpha / rank * up @ down of every layer, by the names of diffusers."""
    tensors = load_file(file)
    scales = {
        float(tensors.pop(name)) / len(tensors[f"{name.removesuffix('.alpha')}.lora_down.weight"])
        for name in [name for name in tensors if name.endswith(".alpha")]
    }
    (scale,) = scales
    renamed = {name.replace("lora_down", "lora_A").replace("lora_up", "lora_B"): one for name, one in tensors.items()}
    assert len(renamed) % 2 == 0
    converted = convert(renamed)
    return {
        name.removeprefix("transformer.").removesuffix(".lora_A.weight"): scale
        * converted[name.replace("lora_A", "lora_B")]
        @ value
        for name, value in converted.items()
        if ".lora_A." in name
    }


def test_every_layer_has_one_place_in_comfyui_and_the_same_product_there(
    name: str, settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    parameters = settings[name]
    generator, adapter = adapted(parameters)
    PolicyDataset(path=str(tmp_path / "policy")).save(adapter)
    files = sorted((tmp_path / "policy" / "comfyui").glob("*.safetensors"))
    assert [file.stem for file in files] == list(adapter.components)
    for file in files:
        if (convert := CONVERTERS.get(parameters.family)) is not None:
            theirs = as_comfyui_reads(file, convert)
        else:
            pipeline = plain_pipeline(parameters)
            pipeline.load_lora_weights(file, **({"load_into_transformer_2": True} if file.stem[-1] == "2" else {}))
            theirs = products(getattr(pipeline, file.stem))
        ours = products(generator.denoisers()[file.stem])
        assert ours.keys() <= theirs.keys()
        for layer, product in theirs.items():
            # For image-to-video models diffusers adds layers of zeros.
            torch.testing.assert_close(product, ours.get(layer, torch.zeros_like(product)), rtol=1e-5, atol=1e-6)


def test_a_fused_layer_keeps_zeros_where_it_has_no_adapter(
    settings: dict[str, GeneratorParameters], tmp_path: Path
) -> None:
    generator, adapter = adapted(settings["hunyuan_video_1_5"], targets=["to_q", "to_v"])
    PolicyDataset(path=str(tmp_path / "policy")).save(adapter)
    read = as_comfyui_reads(tmp_path / "policy" / "comfyui" / "transformer.safetensors", as_hunyuan)
    ours = products(generator.denoiser)
    assert {layer for layer in read if layer.endswith("to_k")}
    for layer, product in read.items():
        torch.testing.assert_close(product, ours.get(layer, torch.zeros_like(product)), rtol=1e-5, atol=1e-6)
    assert ours.keys() <= read.keys()


@pytest.mark.parametrize("family", [family for family in NAMES if family not in READERS])
def test_an_adapter_of_a_layer_that_comfyui_does_not_know_is_not_exported(family: str) -> None:
    layer = "transformer.an_odd_layer.lora_{}.weight"
    config = {"r": 1, "lora_alpha": 1, "target_modules": ["an_odd_layer"]}
    odd = Adapter({layer.format(matrix): torch.zeros(1, 1) for matrix in "AB"}, config, "base")
    assert comfyui_tensors(odd, family) == {}
