"""Several processes that train together, started by torch's elastic launch; one process is a group of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")

_PATIENCE = timedelta(days=2)
"""How long processes wait for one that judges a checkpoint. One that dies ends the wait at once: see the launcher."""
_formed = itertools.count()
"""Groups that this process has been part of."""

_BUCKET = 2**24
"""Elements of gradients that are summed in one message."""


@dataclass(frozen=True)
class Group:
    """The processes of a training.

    Attributes:
        rank: number of this process.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes checkpoints, judges and tells of progress; exactly one does."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every ``size``-th item, beginning with the one at ``rank``."""
        return items[self.rank :: self.size]

    def sum_gradients(self, weights: Sequence[torch.Tensor]) -> None:
        """Replace the gradient of every weight by the sum over all processes.

        A weight that one process used may not have been used by another; one that none used keeps no gradient. Weights
        that are spread over the processes are passed over: their gradients are summed where they arise.
        """
        if self.size == 1:
            return
        import torch
        from torch import distributed

        from vr_pipeline.engine.sharding import is_spread

        weights = [weight for weight in weights if not is_spread(weight)]
        used = torch.tensor([weight.grad is not None for weight in weights])
        anywhere = self.gather({"used": used})["used"].view(-1, self.size).any(dim=1)

        bucket: list[torch.Tensor] = []

        def send() -> None:
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            distributed.all_reduce(flat)
            for gradient, summed in zip(bucket, flat.split([value.numel() for value in bucket]), strict=True):
                gradient.copy_(summed.view_as(gradient))
            bucket.clear()

        for weight, wanted in zip(weights, anywhere, strict=True):
            if not wanted:
                continue
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            bucket.append(weight.grad)
            if sum(gradient.numel() for gradient in bucket) >= _BUCKET:
                send()
        if bucket:
            send()

    def gather(self, values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the values of all processes in the order of the items that :meth:`share` took apart; equal shares."""
        if self.size == 1:
            return dict(values)
        import torch
        from torch import distributed

        local = {name: value.cpu() for name, value in values.items()}
        parts: list[dict[str, torch.Tensor]] = [{} for _ in range(self.size)]
        distributed.all_gather_object(parts, local)
        return {name: torch.stack([part[name] for part in parts], dim=1).flatten() for name in local}

    def from_main(self, value: Item) -> Item:
        """Return what the main process holds, in all of them."""
        if self.size == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


def launched_processes() -> int:
    """How many processes were launched together, this one included; known before the group is formed."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_main_process() -> bool:
    """Whether this process is alone or the first of its group; known before the group is formed."""
    return os.environ.get("RANK", "0") == "0" or "TORCHELASTIC_RUN_ID" not in os.environ


@contextlib.contextmanager
def training_group(device: torch.device) -> Iterator[Group]:
    """Join the group that this process was launched into; alone if it was not launched as part of one.

    Gradients on GPUs are summed by NCCL, everything on CPUs by gloo.

    Args:
        device: where this process trains.
    """
    from torch import distributed

    if launched_processes() == 1:
        yield Group()
        return
    if device.type == "cuda":
        import torch

        torch.cuda.set_device(device)
    store, rank, size = next(distributed.rendezvous("env://", timeout=_PATIENCE))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        # A second training in the same processes must not find the addresses of the first.
        store=distributed.PrefixStore(f"training-{next(_formed)}", store),
        rank=rank,
        world_size=size,
        timeout=_PATIENCE,
    )
    try:
        yield Group(rank, size)
    finally:
        distributed.destroy_process_group()
