"""Operations, weights and activations of a denoiser, in closed form from its configuration in diffusers.

One multiplication and addition are two operations. Attention counts as fused kernels compute it: two products forward,
five backward. A test compares the figures with torch's own count, tensor by tensor (``benchmarks/gpu_training.py``):
weights and operations are equal to it, activations within a percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Costs:
    """What a denoiser needs.

    Attributes:
        parameters: its weights, number.
        adapter: weights of a low-rank adapter on queries, keys, values and outputs, number.
        forward: operations of a pass over one sample, with the adapter.
        sample: the same without an adapter.
        backward: operations of the backward pass to the adapter, for one sample.
        recomputed: operations that gradient checkpointing adds for one sample.
        activations: bytes that the backward pass keeps for one sample, in bfloat16.
        checkpointed: the same with gradient checkpointing; the activations of one block come on top.
        blocks: number of its blocks.
    """

    parameters: float
    adapter: float
    forward: float
    sample: float
    backward: float
    recomputed: float
    activations: float
    checkpointed: float
    blocks: int

    @property
    def pair(self) -> float:
        """Operations of a pair, winner and loser: policy, reference, backward."""
        return 2 * (2 * self.forward + self.backward)

    @property
    def pair_checkpointed(self) -> float:
        """Operations of a pair with gradient checkpointing."""
        return self.pair + 2 * self.recomputed

    def kept(self, *, checkpointing: bool) -> float:
        """Return the bytes that a pair keeps for the backward pass, one block's recomputation included."""
        if not checkpointing:
            return 2 * self.activations
        return 2 * (self.checkpointed + self.activations / self.blocks)


def transformer_costs(config: Mapping[str, Any], latent: tuple[int, int, int], rank: int) -> Costs:
    """Return the costs of a diffusion transformer.

    Args:
        config: of the denoiser, as diffusers writes it; ``_class_name`` says which.
        latent: frames, height and width of the latents of a clip.
        rank: of the adapter.

    Raises:
        KeyError: its class is none of those that are known here.
    """
    return CLOSED_FORMS[config["_class_name"]](config, latent, rank)


def _cogvideox(config: Mapping[str, Any], latent: tuple[int, int, int], rank: int) -> Costs:
    given = _COGVIDEOX | dict(config)
    width = given["num_attention_heads"] * given["attention_head_dim"]
    layers, patch, time = given["num_layers"], given["patch_size"], given["time_embed_dim"]
    text, words = given["text_embed_dim"], given["max_text_seq_length"]
    inward, outward = given["in_channels"] * patch**2, given["out_channels"] * patch**2
    seen = latent[0] * (latent[1] // patch) * (latent[2] // patch)
    tokens = seen + words
    linear, attention = 2 * tokens * width**2, 4 * tokens**2 * width
    adapter = 2 * tokens * width * rank
    norms = 2 * 2 * time * 6 * width
    block = 12 * linear + attention + norms
    around = 2 * seen * inward * width + 2 * words * text * width + 2 * seen * width * outward
    around += 2 * time * (width + time + 2 * width)
    # The first block's input needs no gradient: none flows through its queries, keys and values.
    backward = layers * (12 * linear + 2.5 * attention + 16 * adapter) - 3 * (linear + adapter)
    backward += 2 * seen * width * outward
    head = 4 * given["attention_head_dim"]
    weights = 2 * ((time + 1) * 6 * width + 2 * width) + 4 * (width + 1) * width + head + 8 * width**2 + 5 * width
    weights = layers * weights + (inward + 1) * width + (text + 1) * width + (width + 1) * time + (time + 1) * time
    weights += 2 * width + (time + 1) * 2 * width + 2 * width + (width + 1) * outward
    stored = 2 * tokens * width
    # Fourteen tensors of full width in a block, statistics of the norms, and what the adapters' first halves give.
    last = 4 * seen * width
    kept = layers * (14 * stored + 8 * tokens * given["num_attention_heads"] + 8 * tokens * rank) + last
    return Costs(
        parameters=weights,
        adapter=layers * 8 * width * rank,
        forward=layers * (block + 8 * adapter) + around,
        sample=layers * block + around,
        backward=backward,
        recomputed=layers * (block + 8 * adapter),
        activations=kept,
        checkpointed=layers * stored + last,
        blocks=layers,
    )


def _wan(config: Mapping[str, Any], latent: tuple[int, int, int], rank: int) -> Costs:
    given = _WAN | dict(config)
    width, inner = given["num_attention_heads"] * given["attention_head_dim"], given["ffn_dim"]
    layers, text, words = given["num_layers"], given["text_dim"], given["text_length"]
    sides = given["patch_size"]
    patch = sides[0] * sides[1] * sides[2]
    inward, outward = given["in_channels"] * patch, given["out_channels"] * patch
    tokens = latent[0] * latent[1] * latent[2] // patch
    linear, of_text = 2 * tokens * width**2, 2 * words * width**2
    attention, cross = 4 * tokens**2 * width, 4 * tokens * words * width
    ffn = 2 * tokens * 2 * width * inner
    adapter, text_adapter = 2 * tokens * width * rank, 2 * words * width * rank
    block = 6 * linear + 2 * of_text + attention + cross + ffn
    added = 2 * (6 * adapter + 2 * text_adapter)
    around = 2 * tokens * inward * width + 2 * tokens * width * outward
    around += 2 * words * (text * width + width**2) + 2 * (given["freq_dim"] * width + 7 * width**2)
    # Nothing flows back into the text, nor into the first block's input.
    backward = layers * (6 * linear + 2.5 * (attention + cross) + ffn + 24 * adapter + 6 * text_adapter)
    backward += 2 * tokens * width * outward - 3 * (linear + adapter)
    weights = 8 * (width + 1) * width + 4 * width + 2 * width + 2 * width * inner + inner + width + 6 * width
    weights = layers * weights + (inward + 1) * width + (given["freq_dim"] + 1) * width + (width + 1) * width
    weights += (width + 1) * 6 * width + (text + 1) * width + (width + 1) * width + (width + 1) * outward + 2 * width
    stored = 2 * tokens * width
    # Fourteen tensors of full width in a block, two of the inner width, eleven of the text, and the adapters'.
    last = 2 * stored
    kept = layers * (14 * stored + 4 * tokens * inner + 22 * words * width + 12 * tokens * rank) + last
    return Costs(
        parameters=weights,
        adapter=layers * 16 * width * rank,
        forward=layers * (block + added) + around,
        sample=layers * block + around,
        backward=backward,
        recomputed=layers * (block + added),
        activations=kept,
        checkpointed=layers * stored + last,
        blocks=layers,
    )


_COGVIDEOX: dict[str, Any] = {
    "num_attention_heads": 30,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "time_embed_dim": 512,
    "text_embed_dim": 4096,
    "num_layers": 30,
    "patch_size": 2,
    "max_text_seq_length": 226,
}
_WAN: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "text_length": 512,
    "freq_dim": 256,
    "ffn_dim": 13824,
    "num_layers": 40,
}
CLOSED_FORMS = {"CogVideoXTransformer3DModel": _cogvideox, "WanTransformer3DModel": _wan}
"""Denoisers by their class in diffusers."""
