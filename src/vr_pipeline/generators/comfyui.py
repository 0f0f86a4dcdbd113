"""Adapters under the names that ComfyUI reads.

ComfyUI (``comfy/lora.py``) has for every model a map from a layer's names to a weight or a slice of one. Which names it
knows depends on the model: those of its first publication, those of diffusers, or those of kohya for UNets. It reads no
header with a scale but ``alpha`` beside each layer, divides it by the rank of ``lora_down``, and takes 1 where there is
none. Layers that it fuses and has no slices for are written as one: their matrices A one above the other, their
matrices B along the diagonal.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from vr_pipeline.generators.policy import Adapter

if TYPE_CHECKING:
    import torch

_ATTENTION, _FEED_FORWARD = r"(?:to_[qkv]|to_out\.0)", r"net\.(?:0\.proj|2)"
_JOINT = rf"attn\.(?:{_ATTENTION}|add_[qkv]_proj|to_add_out)"
_BLOCK = r"transformer_blocks\.\d+"
_REFINER = r"context_embedder\.token_refiner\.refiner_blocks\.(\d+)\.attn"
_SAME: Final = r"diffusion_model.\g<0>"
_OF_DIFFUSERS: Final = r"transformer.\g<0>"

_COGVIDEOX: Final = {r".+": _OF_DIFFUSERS}
_WAN: Final = {
    r"blocks\.(\d+)\.attn1\.to_([qkv])": r"diffusion_model.blocks.\1.self_attn.\2",
    r"blocks\.(\d+)\.attn2\.to_([qkv])": r"diffusion_model.blocks.\1.cross_attn.\2",
    r"blocks\.(\d+)\.attn1\.to_out\.0": r"diffusion_model.blocks.\1.self_attn.o",
    r"blocks\.(\d+)\.attn2\.to_out\.0": r"diffusion_model.blocks.\1.cross_attn.o",
    r"blocks\.(\d+)\.ffn\.net\.0\.proj": r"diffusion_model.blocks.\1.ffn.0",
    r"blocks\.(\d+)\.ffn\.net\.2": r"diffusion_model.blocks.\1.ffn.2",
}
_HUNYUAN: Final = {
    # What follows # is the place in a fused layer.
    r"transformer_blocks\.(\d+)\.attn\.to_([qkv])": r"diffusion_model.double_blocks.\1.img_attn.qkv#\2",
    r"transformer_blocks\.(\d+)\.attn\.add_([qkv])_proj": r"diffusion_model.double_blocks.\1.txt_attn.qkv#\2",
    r"transformer_blocks\.(\d+)\.attn\.to_out\.0": r"diffusion_model.double_blocks.\1.img_attn.proj",
    r"transformer_blocks\.(\d+)\.attn\.to_add_out": r"diffusion_model.double_blocks.\1.txt_attn.proj",
    rf"{_REFINER}\.to_([qkv])": r"diffusion_model.txt_in.individual_token_refiner.blocks.\1.self_attn.qkv#\2",
    rf"{_REFINER}\.to_out\.0": r"diffusion_model.txt_in.individual_token_refiner.blocks.\1.self_attn.proj",
}

NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    **dict.fromkeys(("cogvideox", "cogvideox_i2v"), _COGVIDEOX),
    **dict.fromkeys(("wan", "wan_experts", "wan_i2v", "wan_i2v_experts"), _WAN),
    "hunyuan_video_1_5": _HUNYUAN,
    "ltx_2": {rf"{_BLOCK}\.(?:attn[12]\.{_ATTENTION}|ff\.{_FEED_FORWARD})": _SAME},
    "stable_diffusion_3": {
        rf"{_BLOCK}\.(?:{_JOINT}|attn2\.{_ATTENTION}|ff(?:_context)?\.{_FEED_FORWARD})": _OF_DIFFUSERS
    },
    "qwen_image": {rf"{_BLOCK}\.(?:{_JOINT}|(?:img|txt)_mlp\.{_FEED_FORWARD})": _SAME},
    "z_image": {
        rf"(?:layers|noise_refiner|context_refiner)\.\d+\.(?:attention\.{_ATTENTION}|feed_forward\.w[123])": _SAME
    },
    "flux2_klein": {
        rf"{_BLOCK}\.(?:{_JOINT}|ff(?:_context)?\.linear_(?:in|out))": _OF_DIFFUSERS,
        r"single_transformer_blocks\.\d+\.attn\.(?:to_qkv_mlp_proj|to_out)": _OF_DIFFUSERS,
    },
    "sdxl": {rf"(?:down|mid|up)_.+\.{_BLOCK}\.(?:attn[12]\.{_ATTENTION}|ff\.{_FEED_FORWARD})": r"lora_unet_\g<0>"},
}
"""Family -> the name of a layer in diffusers, a pattern -> in ComfyUI."""

READERS: Final[Mapping[str, str]] = dict.fromkeys(("cogvideox", "cogvideox_i2v"), "ComfyUI-CogVideoXWrapper")
"""Nodes that read a model which ComfyUI itself does not know; they look for no alpha, so that B is scaled instead."""


def comfyui_tensors(adapter: Adapter, family: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return an adapter's weights under ComfyUI's names, by part of the pipeline; empty if any is unknown.

    Args:
        adapter: of a generator of the family.
        family: a key of ``vr_pipeline.generators.FAMILIES``.
    """
    layers = sorted({name.rpartition(".lora_")[0] for name in adapter.tensors})
    named = {layer: _name_of(layer.partition(".")[2], NAMES.get(family, {})) for layer in layers}
    whole = {f"{layer}.lora_{matrix}.weight" for layer in layers for matrix in "AB"} == adapter.tensors.keys()
    if not whole or not all(named.values()):
        return {}
    scale = float(adapter.config["lora_alpha"]) / float(adapter.config["r"])
    # By the name of the layer in ComfyUI: its parts, one unless it is fused.
    parts: dict[tuple[str, str], dict[str, tuple[torch.Tensor, torch.Tensor]]] = defaultdict(dict)
    for layer, name in named.items():
        fused, _, place = name.partition("#")
        down, up = (adapter.tensors[f"{layer}.lora_{matrix}.weight"] for matrix in "AB")
        parts[layer.partition(".")[0], fused][place] = down, up
    made: dict[str, dict[str, torch.Tensor]] = {part: {} for part in adapter.components}
    for (part, name), given in parts.items():
        if family in READERS:
            down, up = given[""]
            made[part] |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up * scale}
        else:
            made[part] |= _with_alpha(name, given, scale)
    return made


def _name_of(layer: str, names: Mapping[str, str]) -> str:
    for pattern, name in names.items():
        if found := re.fullmatch(pattern, layer):
            made = found.expand(name)
            return made.replace(".", "_") if made.startswith("lora_unet_") else made
    return ""


def _with_alpha(
    name: str, given: Mapping[str, tuple[torch.Tensor, torch.Tensor]], scale: float
) -> dict[str, torch.Tensor]:
    import torch

    places = ("",) if "" in given else ("q", "k", "v")
    first, last = next(iter(given.values()))
    # A place without an adapter has rows of zeros.
    pairs = [given.get(place, (first[:0], last[:, :0])) for place in places]
    down = torch.cat([pair[0] for pair in pairs])
    up = torch.block_diag(*(pair[1] for pair in pairs))
    return {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(scale * len(down)),
    }
