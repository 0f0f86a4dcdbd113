"""State of a training in one file, from which it goes on to the result it would have had without interruption.

The file outlives the training: until what it made is saved, a kill would otherwise lose all of it. What a training
leaves at its end is its result, and whoever has that saved removes the file by :func:`remove_finished`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError, storage_explained
from vr_pipeline.training.sharding import local_part, spread, whole

if TYPE_CHECKING:
    import torch

    from vr_pipeline.training.optimisation import AveragedWeights

LogRows = list[dict[str, float]]

FINISHED = {"finished": "true"}
"""Entry in the header of a file that holds the result of a training, not a state on the way."""


@dataclass(frozen=True)
class BestWeights:
    """The weights of the highest validation reward so far.

    Attributes:
        step: after which they were judged; 0 if nothing was judged yet.
        reward: what they got.
        weights: copies on the CPU, in the order of the trained parameters; of what this process holds of them.
    """

    step: int = 0
    reward: float = -math.inf
    weights: tuple[torch.Tensor, ...] = ()

    def improved(self, step: int, reward: float, weights: Sequence[torch.Tensor]) -> BestWeights:
        """These, or a copy of the given ones if their reward is higher."""
        if not reward > self.reward:
            return self
        return BestWeights(step, reward, tuple(local_part(weight.detach()).cpu().clone() for weight in weights))

    def restore(self, weights: Sequence[torch.Tensor]) -> None:
        """Copy them into the given parameters."""
        import torch

        with torch.no_grad():
            for weight, kept in zip(weights, self.weights, strict=True):
                local_part(weight).copy_(kept)


@dataclass
class TrainingState:
    """All that a training changes.

    Order, noise and timesteps derive from the step and from identifiers, so there is no random state to keep.

    Attributes:
        weights: trained parameters, in a fixed order.
        optimizer: their optimiser.
        average: their running average, if one is kept.
        step: steps that are done.
        rows: training log up to this step.
        best: the weights of the highest validation reward so far.
        finished: the training is over, and ``weights`` are those of the policy. Then only they are kept.
    """

    weights: Sequence[torch.Tensor]
    optimizer: torch.optim.Optimizer
    average: AveragedWeights | None = None
    step: int = 0
    rows: LogRows = field(default_factory=list)
    best: BestWeights = field(default_factory=BestWeights)
    finished: bool = False


def save_checkpoint(path: Path, state: TrainingState, *, identity: str, main: bool = True) -> None:
    """Replace the checkpoint in ``path``; a kill while writing leaves the one before.

    Args:
        path: safetensors file.
        state: what is kept.
        identity: hash of everything that determines the training.
        main: whether this process writes. All processes of a group have to call, to bring their slices together.

    Raises:
        InputError: if the disk is full, or the folder cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, int | float] = {}

    def keep(name: str, value: Any) -> None:
        if not hasattr(value, "detach"):
            numbers[name] = value
            return
        complete = whole(value.detach())
        if main:
            # A copy: optimisers may share a tensor between weights, which the format refuses.
            tensors[name] = complete.contiguous().to("cpu", copy=True)

    for index, weight in enumerate(state.weights):
        keep(f"weight.{index}", weight)
        if state.finished:
            continue
        for name, value in sorted(state.optimizer.state[weight].items()):
            keep(f"optimizer.{index}.{name}", value)
        if state.average is not None:
            keep(f"average.{index}", state.average.average[index])
        if state.best.weights:
            keep(f"best.{index}", whole(state.best.weights[index], like=weight.detach()))
    if not main:
        return
    best = {"step": state.best.step, "reward": state.best.reward}
    header = {"step": state.step, "log": state.rows, "best": best, "numbers": numbers}
    write_state(path, tensors, {"identity": identity, "state": json.dumps(header)}, finished=state.finished)


def write_state(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], *, finished: bool
) -> None:
    """Replace the file of a training's state; a kill while writing leaves the one before.

    Args:
        path: safetensors file.
        tensors: on the CPU, contiguous, none sharing memory with another.
        metadata: entries of its header.
        finished: it holds a result, which :func:`remove_finished` removes.

    Raises:
        InputError: if the disk is full, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}.tmp")
    mark = FINISHED if finished else {}
    with storage_explained(path, "the checkpoint before is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(tensors), temporary, metadata={**metadata, **mark})
        os.replace(temporary, path)


@contextmanager
def open_state(path: Path, *, device: str = "cpu") -> Iterator[Any]:
    """A training's state, opened by safetensors within the block; its tensors are read to a device.

    Raises:
        InputError: if the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except SafetensorError as error:
        raise InputError(
            f"the checkpoint of a training is damaged ({error})",
            file=path,
            remedy="delete it; the training then starts from the beginning",
        ) from error


def is_finished(metadata: Mapping[str, str] | None) -> bool:
    """Whether the header of a state says that it holds the result of a training."""
    return FINISHED.items() <= (metadata or {}).items()


def load_checkpoint(path: Path, state: TrainingState, *, identity: str) -> None:
    """Put what a checkpoint holds into the state; nothing if there is none, or one of another training.

    Raises:
        InputError: if the file is damaged.
    """
    if not path.is_file():
        return
    with open_state(path) as file:
        metadata = file.metadata()
        if metadata["identity"] == identity:
            state.finished = is_finished(metadata)
            _restore(state, {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["state"]))  # noqa: SIM118


def _restore(state: TrainingState, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    import torch

    values: dict[str, Any] = {**tensors, **header["numbers"]}
    best = []
    with torch.no_grad():
        for index, weight in enumerate(state.weights):
            like = weight.detach()
            weight.copy_(spread(tensors[f"weight.{index}"], like))
            if state.finished:
                continue
            prefix = f"optimizer.{index}."
            state.optimizer.state[weight] = {
                name.removeprefix(prefix): spread(value, like) if hasattr(value, "detach") else value
                for name, value in values.items()
                if name.startswith(prefix)
            }
            if state.average is not None:
                state.average.average[index].copy_(spread(tensors[f"average.{index}"], like))
            if f"best.{index}" in tensors:
                best.append(local_part(spread(tensors[f"best.{index}"], like)).cpu())
    state.step, state.rows = header["step"], header["log"]
    state.best = BestWeights(weights=tuple(best), **header["best"])


def remove_finished(folder: Path) -> None:
    """Remove what finished trainings left in a folder; those that are not finished can still go on.

    To be called when their results are saved, and nothing trains there.
    """
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                finished = is_finished(file.metadata())
        except SafetensorError:
            continue  # Damaged; the training that needs it says so.
        if finished:
            path.unlink()
