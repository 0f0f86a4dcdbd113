"""State of a training in one file, from which it goes on to the result it would have had without interruption."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    import torch

LogRows = list[dict[str, float]]


@dataclass(frozen=True)
class BestWeights:
    """The weights of the highest validation reward so far.

    Attributes:
        step: after which they were judged; 0 if nothing was judged yet.
        reward: what they got.
        weights: copies on the CPU, in the order of the trained parameters.
    """

    step: int = 0
    reward: float = -math.inf
    weights: tuple[torch.Tensor, ...] = ()

    def improved(self, step: int, reward: float, weights: Sequence[torch.Tensor]) -> BestWeights:
        """These, or a copy of the given ones if their reward is higher."""
        if not reward > self.reward:
            return self
        return BestWeights(step, reward, tuple(weight.detach().cpu().clone() for weight in weights))

    def restore(self, weights: Sequence[torch.Tensor]) -> None:
        """Copy them into the given parameters, if there are any."""
        import torch

        with torch.no_grad():
            for weight, kept in zip(weights, self.weights, strict=False):
                weight.copy_(kept)


def save_checkpoint(
    path: Path,
    *,
    identity: str,
    step: int,
    weights: Sequence[torch.Tensor],
    optimizer: torch.optim.Optimizer,
    rows: LogRows,
    best: BestWeights,
) -> None:
    """Replace the checkpoint in ``path``; a kill while writing leaves the one before.

    Order, noise and timesteps derive from the step and from identifiers, so there is no random state to keep.

    Args:
        path: safetensors file.
        identity: hash of everything that determines the training.
        step: steps that are done.
        weights: trained parameters, in a fixed order.
        optimizer: optimiser of these parameters.
        rows: training log up to this step.
        best: the weights of the highest validation reward so far.
    """
    from safetensors.torch import save_file

    tensors = {f"weight.{index}": weight.detach().cpu().contiguous() for index, weight in enumerate(weights)}
    for index, weight in enumerate(weights):
        for name, value in optimizer.state[weight].items():
            tensors[f"optimizer.{index}.{name}"] = value.detach().cpu().contiguous()
    tensors |= {f"best.{index}": weight for index, weight in enumerate(best.weights)}
    header = {"step": step, "log": rows, "best": {"step": best.step, "reward": best.reward}}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={"identity": identity, "state": json.dumps(header)})
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, *, identity: str, weights: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, LogRows, BestWeights]:
    """Put a checkpoint's state into weights and optimiser.

    Returns:
        steps that are done, their log and the best weights so far; 0 and nothing if there is no checkpoint, or one
        of another training.

    Raises:
        InputError: if the file is damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return 0, [], BestWeights()
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            if header["identity"] != identity:
                return 0, [], BestWeights()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(
            f"the checkpoint of a training is damaged ({error})",
            file=path,
            remedy="delete it; the training then starts from the beginning",
        ) from error
    with torch.no_grad():
        for index, weight in enumerate(weights):
            weight.copy_(tensors[f"weight.{index}"])
            prefix = f"optimizer.{index}."
            optimizer.state[weight] = {
                name.removeprefix(prefix): value.to(weight.device)
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
    state = json.loads(header["state"])
    kept = tuple(tensors[f"best.{index}"] for index in range(len(weights)) if f"best.{index}" in tensors)
    return state["step"], state["log"], BestWeights(weights=kept, **state["best"])
