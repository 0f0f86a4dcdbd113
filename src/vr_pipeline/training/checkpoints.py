"""State of a training in one file, from which it goes on to the result it would have had without interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vr_pipeline.errors import InputError

if TYPE_CHECKING:
    import torch

LogRows = list[dict[str, float]]


def save_checkpoint(
    path: Path,
    *,
    identity: str,
    step: int,
    weights: Sequence[torch.Tensor],
    optimizer: torch.optim.Optimizer,
    rows: LogRows,
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
    """
    from safetensors.torch import save_file

    tensors = {f"weight.{index}": weight.detach().cpu().contiguous() for index, weight in enumerate(weights)}
    for index, weight in enumerate(weights):
        for name, value in optimizer.state[weight].items():
            tensors[f"optimizer.{index}.{name}"] = value.detach().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={"identity": identity, "step": str(step), "log": json.dumps(rows)})
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, *, identity: str, weights: Sequence[torch.Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, LogRows]:
    """Put a checkpoint's state into weights and optimiser.

    Returns:
        steps that are done and their log; 0 and no rows if there is no checkpoint, or one of another training.

    Raises:
        InputError: if the file is damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return 0, []
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            if header["identity"] != identity:
                return 0, []
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
    return int(header["step"]), json.loads(header["log"])
