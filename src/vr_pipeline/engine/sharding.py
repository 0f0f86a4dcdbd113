"""Weights, gradients and optimiser state sharded over the processes of a group (FSDP2).

Source: Zhao et al. 2023, PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel; torch's ``fully_shard``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def blocks_of(network: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield the repeated blocks of a network: the entries of its outermost module lists."""
    import torch

    for child in network.children():
        if isinstance(child, torch.nn.ModuleList):
            yield from child


def shard_weights(network: torch.nn.Module, frozen: Sequence[torch.nn.Module], dtype: str) -> list[Any]:
    """Shard a network, and frozen ones beside it, over the processes.

    Complete weights exist for one block at a time.

    Args:
        network: the trained network.
        frozen: further networks, already in their precision.
        dtype: precision in which the trained network computes.

    Returns:
        the new trainable parameters, in a fixed order.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Every pass would warn about changing a denoiser's output in place, which nothing here does.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    device = next(network.parameters()).device
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    precision = MixedPrecisionPolicy(
        param_dtype=getattr(torch, dtype), reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for one in (network, *frozen):
        policy = precision if one is network else MixedPrecisionPolicy(cast_forward_inputs=False)
        for block in blocks_of(one):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        # Otherwise complete weights of a forward pass would outlive a change of the shards.
        fully_shard(one, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    return [value for _, value in sorted(network.named_parameters()) if value.requires_grad]


def local_part(value: Any) -> Any:
    """Return this process's shard of a tensor; the tensor itself if it is not sharded."""
    return value.to_local() if is_spread(value) else value


def whole(value: Any, like: Any = None) -> Any:
    """Return the complete tensor of one that may be sharded. All processes have to call this together.

    Args:
        value: the tensor, or this process's shard of it if ``like`` is given.
        like: a tensor that is sharded in the same way.
    """
    if is_spread(like) and not is_spread(value):
        from torch.distributed.tensor import DTensor

        value = DTensor.from_local(
            value.to(like.device), like.device_mesh, like.placements, shape=like.shape, stride=like.stride()
        )
    return value.full_tensor() if is_spread(value) else value


def spread(value: torch.Tensor, like: Any) -> torch.Tensor:
    """Move a complete tensor to the device of another, and shard it like that if their shapes are equal."""
    placed = value.to(like.device)
    if not is_spread(like) or value.shape != like.shape:
        return placed
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(placed, like.device_mesh, like.placements)


def is_spread(value: Any) -> bool:
    """Return whether a tensor is sharded."""
    return hasattr(value, "full_tensor")
