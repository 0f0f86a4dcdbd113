"""What preference training makes of a generator: an adapter, or all weights anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vr_pipeline.identifiers import content_hash

if TYPE_CHECKING:
    import torch

ORIGINAL = "original"
"""Name of the untrained generator among the policies."""


@dataclass(frozen=True)
class Adapter:
    """A low-rank adapter as plain data.

    Attributes:
        tensors: weights by name, with the component they belong to as prefix (``transformer.``), in the names that
            ``pipeline.load_lora_weights`` of diffusers reads.
        config: rank (r), scale (lora_alpha) and target_modules.
        base: identity of the weights it was trained on.
        provenance: how it was made: settings, data hashes; goes into the model card.
    """

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    base: str
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def component(self) -> str:
        """The (first) part of the pipeline the adapter belongs to: transformer or unet."""
        return self.components[0]

    @property
    def components(self) -> tuple[str, ...]:
        """All parts of the pipeline that the adapter belongs to: two transformers where there are two experts."""
        return tuple(sorted({name.partition(".")[0] for name in self.tensors}))

    @property
    def identity(self) -> str:
        """Hash of weights and scale."""
        parts: list[str | bytes] = [str(self.config["r"]), str(self.config["lora_alpha"]), self.base]
        for name, value in sorted(self.tensors.items()):
            parts += [name, bytes(bytes_of(value))]
        return content_hash("adapter", *parts)


@dataclass(frozen=True)
class FullWeights:
    """A fine-tuned denoiser as plain data: all of its weights.

    Attributes:
        tensors: weights by name, in the precision the generator is configured for.
        config: configuration of the denoiser's class in diffusers.
        component: the part of the pipeline it replaces: transformer or unet.
        base: identity of the weights it was trained from.
        provenance: how it was made: settings, data hashes; goes into the model card.
    """

    tensors: dict[str, torch.Tensor]
    config: dict[str, Any]
    component: str
    base: str
    provenance: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """Hash of the weights."""
        import hashlib

        digest = hashlib.sha256()
        for name, value in sorted(self.tensors.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(bytes_of(value))
        return content_hash("full weights", self.base, digest.hexdigest())


def bytes_of(value: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor of any precision, also of those that numpy lacks."""
    import torch

    return value.contiguous().reshape(-1).view(torch.uint8).numpy().data


Policy = Adapter | FullWeights
"""What preference training makes."""


@dataclass(frozen=True)
class Start:
    """An adapter with which a training starts.

    Attributes:
        adapter: the initial weights.
        renewed: whether the reference is the generator with this adapter; otherwise it is the original.
    """

    adapter: Adapter
    renewed: bool = False

    @property
    def identity(self) -> str:
        """Hash of the adapter and of the choice of the reference."""
        return content_hash("start", self.adapter.identity, int(self.renewed))
