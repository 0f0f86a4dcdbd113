"""Judges in 8 or 4 bits, by bitsandbytes."""

from __future__ import annotations

import copy
import importlib.util
from functools import partial
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError
from vr_pipeline.vlm.config import JudgeParameters

if TYPE_CHECKING:
    import torch


def quantisation_config(parameters: JudgeParameters) -> Any:
    """Return the configuration of 8 or 4 bits; raise :class:`InputError` where bitsandbytes is missing."""
    import torch
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError(
            f"loading in {parameters.quantisation} needs the package bitsandbytes",
            remedy="Install the extra 'gpu' (pip install 'vr_pipeline[gpu]'), or set quantisation to none",
            field="judge.quantisation",
        )
    if parameters.quantisation == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, parameters.dtype)
    )


def compute_exactly_on_cpu(model: Any) -> None:
    """Have 4-bit layers on the CPU compute with the weights that are stored, on every processor.

    bitsandbytes 0.50 does not: with AVX-512 it unpacks wrongly where the inputs of a layer are no multiple of the block
    of 64 weights, and with AVX512-BF16 it fails there and where the outputs are no multiple of 32. The vision towers of
    Qwen2.5-VL (3420) and LLaVA-OneVision (4304) have such layers. Unpacked as one long row the weights are right.

    Call it before an adapter is put on top.
    """
    for layer in model.modules():
        if type(layer).__name__ == "Linear4bit" and layer.weight.device.type == "cpu":
            layer.forward = partial(_forward, layer)


def _forward(layer: Any, inputs: torch.Tensor) -> torch.Tensor:
    import torch

    dtype = layer.compute_dtype or inputs.dtype
    bias = None if layer.bias is None else layer.bias.to(dtype)
    outputs = torch.nn.functional.linear(inputs.to(dtype), unpacked(layer.weight).to(dtype), bias)
    return outputs.to(inputs.dtype)


def unpacked(weight: Any) -> torch.Tensor:
    """Return the matrix [outputs, inputs] that 4-bit weights stand for."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    shape = weight.quant_state.shape
    as_one_row = copy.copy(weight.quant_state)
    as_one_row.shape = torch.Size([1, 2 * weight.data.numel() * weight.data.element_size()])
    values: torch.Tensor = dequantize_4bit(weight.data, as_one_row)
    return values.reshape(-1)[: shape.numel()].reshape(shape)
