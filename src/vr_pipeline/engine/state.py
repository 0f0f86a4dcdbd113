"""State of a training in one file, from which it resumes with the same result as without interruption.

At the end of a training the file has its result, which a training of the same identity uses instead of training again.
:func:`keep_newest` removes old files. The file includes the SHA-256 of its content, so any flipped bit is detected.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.engine.optimisation import AveragedWeights
from vr_pipeline.engine.sharding import local_part, spread, whole
from vr_pipeline.errors import InputError, storage_explained
from vr_pipeline.storage.atomic import remove, replaced

if TYPE_CHECKING:
    import torch

LogRows = list[dict[str, float]]

WEIGHTS = ".weights"
"""Ending of a folder with the weights of a training's validated checkpoints."""

_KEY = "training"
"""The only metadata entry: safetensors writes several entries in an order that changes from run to run."""


_COPIES = ("best", "healthy", "pending")
"""Attributes of a state that are copies of weights."""


@dataclass(frozen=True)
class BestWeights:
    """A copy of weights: the best validated ones so far, or those of a healthy step.

    Attributes:
        step: of these weights; 0 if nothing was validated yet.
        value: their judgement, higher is better.
        weights: copies on the CPU, in the order of the trained parameters; of this process's shards.
    """

    step: int = 0
    value: float = -math.inf
    weights: tuple[torch.Tensor, ...] = ()

    def improved(self, step: int, value: float, weights: Sequence[torch.Tensor]) -> BestWeights:
        """Return these, or a copy of the given ones if their value is higher."""
        return BestWeights.copied(step, weights, value) if value > self.value else self

    @staticmethod
    def copied(step: int, weights: Sequence[torch.Tensor], value: float = -math.inf) -> BestWeights:
        """Copy the given weights."""
        return BestWeights(step, value, tuple(local_part(weight.detach()).cpu().clone() for weight in weights))

    def restore(self, weights: Sequence[torch.Tensor]) -> None:
        """Copy these weights into the given parameters."""
        import torch

        with torch.no_grad():
            for weight, kept in zip(weights, self.weights, strict=True):
                local_part(weight).copy_(kept)


@dataclass
class TrainingState:
    """The state of a training.

    Order, noise and timesteps depend on the step and on identifiers, so there is no random state.

    Attributes:
        weights: trained parameters, in a fixed order.
        optimizers: their optimisers.
        average: their running average, if configured.
        step: number of finished steps.
        rows: training log up to this step.
        best: the best validated weights so far.
        healthy: the last weights whose following steps were healthy; without weights if nothing watches.
        pending: newer weights, whose following steps are not known yet.
        healthy_until: the last step known to be healthy.
        finished: the training is over, and ``weights`` are its result; then only they are stored.
    """

    weights: Sequence[torch.Tensor]
    optimizers: Sequence[torch.optim.Optimizer]
    average: AveragedWeights | None = None
    step: int = 0
    rows: LogRows = field(default_factory=list)
    best: BestWeights = field(default_factory=BestWeights)
    healthy: BestWeights = field(default_factory=BestWeights)
    pending: BestWeights = field(default_factory=BestWeights)
    healthy_until: int = 0
    finished: bool = False

    def optimizer_states(self) -> list[Any]:
        """Return for each weight the state table of its optimiser."""
        tables = {
            id(weight): optimizer.state
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for weight in group["params"]
        }
        return [tables[id(weight)] for weight in self.weights]


def save_checkpoint(path: Path, state: TrainingState, *, identity: str, main: bool = True) -> None:
    """Replace the checkpoint in ``path``; after a kill while writing, the previous one remains.

    Args:
        path: safetensors file.
        state: the state to save.
        identity: hash of everything that determines the training.
        main: whether this process writes. All processes of a group have to call this, to gather their shards.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, int | float] = {}

    def keep(name: str, value: Any) -> None:
        if not hasattr(value, "detach"):
            numbers[name] = value
            return
        complete = whole(value.detach())
        if main:
            # A copy, because optimisers may share a tensor between weights, which the format rejects.
            tensors[name] = complete.contiguous().to("cpu", copy=True)

    for index, (weight, optimizer_state) in enumerate(zip(state.weights, state.optimizer_states(), strict=True)):
        keep(f"weight.{index}", weight)
        if state.finished:
            continue
        for name, value in sorted(optimizer_state[weight].items()):
            keep(f"optimizer.{index}.{name}", value)
        if state.average is not None:
            keep(f"average.{index}", state.average.average[index])
        for name in _COPIES:
            copy: BestWeights = getattr(state, name)
            # The initial weights are not stored.
            if copy.step:
                keep(f"{name}.{index}", whole(copy.weights[index], like=weight.detach()))
    if not main:
        return
    copies = {name: {"step": getattr(state, name).step, "value": getattr(state, name).value} for name in _COPIES}
    header = {"identity": identity, "step": state.step, "log": state.rows, "copies": copies, "numbers": numbers}
    text = json.dumps(header | {"finished": state.finished, "healthy_until": state.healthy_until})
    with storage_explained(path, "the previous checkpoint is kept"), replaced(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: f"{_digest(text, tensors)} {text}"})


def _digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    import torch

    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_checkpoint(path: Path, state: TrainingState, *, identity: str, retrain: bool = False) -> None:
    """Load a checkpoint into the state, unless there is none or it belongs to another training.

    Args:
        path: the file.
        state: receives the content.
        identity: hash of everything that determines the training.
        retrain: ignore the result of a finished training.

    Raises:
        InputError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return
    try:
        with safe_open(path, framework="pt") as file:
            digest, _, text = (file.metadata() or {}).get(_KEY, "").partition(" ")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if digest != _digest(text, tensors):
            raise SafetensorError("its content does not match its recorded hash")
    except SafetensorError as error:
        raise InputError(
            f"the checkpoint of a training is damaged ({error})",
            file=path,
            remedy="delete it; the training then starts from the beginning",
        ) from error
    header = json.loads(text)
    if header["identity"] == identity and not (retrain and header["finished"]):
        state.finished = header["finished"]
        _restore(state, tensors, header)
        # Time of last use, for keep_newest.
        os.utime(path)


def _restore(state: TrainingState, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    import torch

    values: dict[str, Any] = {**tensors, **header["numbers"]}
    copies: dict[str, list[torch.Tensor]] = {name: [] for name in _COPIES}
    with torch.no_grad():
        for index, (weight, optimizer_state) in enumerate(zip(state.weights, state.optimizer_states(), strict=True)):
            like = weight.detach()
            weight.copy_(spread(tensors[f"weight.{index}"], like))
            if state.finished:
                continue
            prefix = f"optimizer.{index}."
            optimizer_state[weight] = {
                name.removeprefix(prefix): spread(value, like) if hasattr(value, "detach") else value
                for name, value in values.items()
                if name.startswith(prefix)
            }
            if state.average is not None:
                state.average.average[index].copy_(spread(tensors[f"average.{index}"], like))
            for name, kept in copies.items():
                if f"{name}.{index}" in tensors:
                    kept.append(local_part(spread(tensors[f"{name}.{index}"], like)).cpu())
    state.step, state.rows, state.healthy_until = header["step"], header["log"], header["healthy_until"]
    for name, kept in copies.items():
        if kept:
            setattr(state, name, BestWeights(weights=tuple(kept), **header["copies"][name]))


def keep_newest(folder: Path, count: int) -> None:
    """Remove states and weights of trainings from a folder, except the ``count`` most recently used ones.

    Must not be called while a training uses the folder.
    """
    for ending in (".safetensors", WEIGHTS):
        found = sorted(folder.glob(f"[!.]*{ending}"), key=lambda path: (-path.stat().st_mtime_ns, path.name))
        for path in found[count:]:
            remove(path)
