"""What a decoder keeps of tokens that it has read, taken row by row, so that several texts may follow the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vr_pipeline.vlm.families.base import Family

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LayerState:
    """What a layer keeps of one row.

    Attributes:
        first, second: keys and values of every token, [1, heads, tokens, width]; of a recurrent layer the inputs of
            its convolution [1, channels, kernel] and its state [1, heads, width, width] after the last token.
        recurrent: which of both.
    """

    first: torch.Tensor
    second: torch.Tensor
    recurrent: bool = False


State = list[LayerState]
"""One entry per layer."""


def new_cache(family: Family) -> Any:
    """Return an empty cache for the decoder's kinds of layers."""
    from transformers import DynamicCache

    return DynamicCache(config=family.language_model.config) if family.recurrent else DynamicCache()


def state_of_row(cache: Any, row: int, count: int) -> State:
    """Return what is kept of a row's first tokens; recurrent layers keep the state after the last one only."""
    of_row = slice(row, row + 1)
    return [
        LayerState(layer.conv_states[0][of_row], layer.recurrent_states[0][of_row], recurrent=True)
        if hasattr(layer, "recurrent_states")
        else LayerState(layer.keys[of_row, :, :count], layer.values[of_row, :, :count])
        for layer in cache.layers
    ]


def cache_from(state: State, rows: int) -> Any:
    """Return a cache in which every row has read the same; keys and values are not copied."""
    from transformers import Cache
    from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

    layers: list[Any] = []
    for kept in state:
        if not kept.recurrent:
            layer = DynamicLayer()
            layer.lazy_initialization(kept.first, kept.second)
            layer.keys, layer.values = (one.expand(rows, -1, -1, -1) for one in (kept.first, kept.second))
        else:
            layer = LinearAttentionLayer()
            # These are changed in place: each row needs its own.
            convolution, running = (one.repeat_interleave(rows, dim=0) for one in (kept.first, kept.second))
            layer.lazy_initialization(convolution, running)
            layer.update_conv_state(convolution)
            layer.update_recurrent_state(running)
        layers.append(layer)
    return Cache(layers=layers)
