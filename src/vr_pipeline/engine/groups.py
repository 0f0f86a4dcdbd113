"""Groups of processes that train together, started by torch's elastic launch; a single process is a group too."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vr_pipeline.engine.sharding import is_spread

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")

_PATIENCE = timedelta(days=2)
"""How long processes wait for a slower one. If one dies, the launcher ends the others immediately."""
_formed = itertools.count()
"""Number of groups that this process has joined."""

_BUCKET = 2**24
"""Elements of gradients per message."""


@dataclass(frozen=True)
class Group:
    """The processes of a training.

    Attributes:
        rank: number of this process.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one process that writes files and shows progress."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return every ``size``-th item, starting at ``rank``."""
        return items[self.rank :: self.size]

    def sum_gradients(self, weights: Sequence[torch.Tensor]) -> None:
        """Replace the gradient of every weight by the sum over all processes.

        A weight may be used by only some processes; one that none used has no gradient. Sharded weights are skipped,
        because FSDP sums their gradients.
        """
        if self.size == 1:
            return
        import torch
        from torch import distributed

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
        """Return the values of all processes, in the order before :meth:`share`; shares must have equal sizes."""
        if self.size == 1:
            return dict(values)
        import torch
        from torch import distributed

        local = {name: value.cpu() for name, value in values.items()}
        parts: list[dict[str, torch.Tensor]] = [{} for _ in range(self.size)]
        distributed.all_gather_object(parts, local)
        return {name: torch.stack([part[name] for part in parts], dim=1).flatten() for name in local}

    def gather_rows(self, rows: NDArray[np.float64], count: int) -> NDArray[np.float64]:
        """Return the rows of all processes in the order before :meth:`share`, [count, columns].

        Args:
            rows: of this process's share; shares may differ by one row.
            count: number of rows of all processes.
        """
        import torch

        filled = np.full((-(-count // self.size), rows.shape[1]), np.nan)
        filled[: len(rows)] = rows
        gathered = self.gather({"rows": torch.from_numpy(filled)})["rows"]
        found: NDArray[np.float64] = gathered.view(-1, rows.shape[1])[:count].numpy()
        return found

    def from_main(self, value: Item) -> Item:
        """Return the main process's value, in all processes."""
        if self.size == 1:
            return value
        from torch import distributed

        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def to_main(self, value: Item) -> list[Item]:
        """Return the values of all processes in order, in the main process; an empty list in the others."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] | None = [None] * self.size if self.main else None
        distributed.gather_object(value, values, dst=0)
        return values or []


def current_group() -> Group:
    """Return the current group of this process (see :func:`training_group`), else a group of one."""
    if launched_processes() == 1:
        return Group()
    from torch import distributed

    return Group(distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else Group()


def launched_processes() -> int:
    """Return the number of processes that were launched together, also before the group is formed."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


@contextlib.contextmanager
def training_group(device: torch.device) -> Iterator[Group]:
    """Join the group of processes that were launched together, else a group of one.

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
        # A second training in the same processes must not use the addresses of the first.
        store=distributed.PrefixStore(f"training-{next(_formed)}", store),
        rank=rank,
        world_size=size,
        timeout=_PATIENCE,
    )
    try:
        yield Group(rank, size)
    finally:
        distributed.destroy_process_group()
