"""The first blocks of a denoiser as a network of their own, which gives hidden states of noised latents.

Denoisers of diffusers embed latents, time and text, go through a list of equal blocks, and turn what comes out into a
prediction. With a shorter list, and a stop where the list ends, their own forward pass gives the hidden states after
the first blocks, and nothing of it is repeated here.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition, Generator
from vr_pipeline.generators.diffusers_pipeline import PipelineGenerator

if TYPE_CHECKING:
    import torch

_FIELD = "latent_reward.blocks"


class _Reached(Exception):
    """The forward pass has come to the end of the blocks."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class EarlyBlocks:
    """A copy of everything in a denoiser up to its block number ``count``, in float32.

    The denoiser itself is left alone, and a policy that it has is no part of the copy.

    Attributes:
        network: the copy; its forward pass ends after the last block.
        generator: the generator with the copy in its denoiser's place, and without its encoders: it says what times
            mean and puts latents at them.
        width: size of a token's hidden state.
        heads: attention heads of a block.
    """

    def __init__(self, generator: Generator, count: int) -> None:
        """Copy the blocks.

        Args:
            generator: with its denoiser loaded.
            count: how many blocks, from the first.

        Raises:
            InputError: the denoiser is no single list of blocks, or has fewer.
        """
        if not isinstance(generator, PipelineGenerator) or (blocks := _list_of_blocks(generator.denoiser)) is None:
            raise InputError(
                f"the denoiser of the family '{generator.parameters.family}' is no single row of blocks, so that it "
                "has no first ones",
                field="generator.family",
                remedy="choose a generator whose denoiser is a transformer, such as CogVideoX or Wan",
            )
        there = len(getattr(generator.denoiser, blocks))
        if not 1 <= count <= there:
            raise InputError(
                f"the first {count} blocks are configured, but the generator's denoiser has {there}",
                field=_FIELD,
                remedy=f"choose a number from 1 to {there}",
            )
        self.network = _shortened(generator, blocks, count)
        config = generator.denoiser.config
        self.heads = int(config["num_attention_heads"])  # type: ignore[index]
        self.width = self.heads * int(config["attention_head_dim"])  # type: ignore[index]
        self.generator = _generator_of(generator, self.network)

    def hidden(self, noised: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        """Return the hidden states of the latents' tokens after the last block, [batch, tokens, width].

        Differentiable with respect to the latents and the network's weights.

        Args:
            noised: latents x_t, [batch, ...], shaped as the generator's ``predict`` takes them.
            timesteps: on the generator's own scale, [batch].
            condition: of the prompts, every tensor [batch, ...].
        """
        weight, reader = next(self.network.parameters()), self.generator
        # The weights' precision, whatever the generator is configured to compute in.
        configured, reader.dtype = reader.dtype, weight.dtype
        try:
            reader.predict(noised.to(weight.device), timesteps.to(weight.device), condition)
        except _Reached as end:
            return end.hidden
        finally:
            reader.dtype = configured
        raise AssertionError("the denoiser's forward pass passed by the end of its blocks")


def _list_of_blocks(denoiser: torch.nn.Module) -> str | None:
    """Return the name of the only list of modules in a denoiser; None if it has none or several, as UNets have."""
    import torch

    lists = [name for name, child in denoiser.named_children() if isinstance(child, torch.nn.ModuleList)]
    return lists[0] if len(lists) == 1 else None


def _shortened(generator: PipelineGenerator, blocks: str, count: int) -> Any:
    """Return a denoiser of the same class with fewer blocks, the original's weights, and a stop behind the blocks."""
    import torch
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        network = generator.denoiser_class.from_config(dict(generator.denoiser.config) | {"num_layers": count})  # type: ignore[arg-type]
    names = network.state_dict().keys()
    kept = {name: value for name, value in generator.original_weights().items() if name in names}
    network.load_state_dict({name: _own_copy(value) for name, value in kept.items()}, strict=True, assign=True)
    children = [name for name, _ in network.named_children()]
    behind = children[children.index(blocks) + 1 :]
    for name in behind:
        setattr(network, name, torch.nn.Identity())
    getattr(network, behind[0]).register_forward_pre_hook(_stop)
    for weight in network.parameters(recurse=False):
        # Of the output, which is not reached.
        weight.requires_grad_(False)
    return network.to(generator.device).eval()


def _own_copy(value: torch.Tensor) -> torch.Tensor:
    return value.float().clone() if value.is_floating_point() else value.clone()


def _stop(_: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
    raise _Reached(inputs[0])


def _generator_of(generator: PipelineGenerator, network: torch.nn.Module) -> PipelineGenerator:
    """Return a generator whose ``predict`` asks the network, and which keeps no other part in memory."""
    import torch

    made = copy.copy(generator)
    made.pipeline = copy.copy(generator.pipeline)
    for name, part in generator.pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            setattr(made.pipeline, name, network if name == generator.component else None)
    return made
