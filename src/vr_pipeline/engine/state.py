"""State of a training in one file, from which it resumes to the result it would have had without interruption.

The file outlives the training: what a training leaves at its end is its result, which a training of the same identity
takes up instead of being done again. :func:`keep_newest` removes those that are no longer wanted.

Its first bytes name its SHA-256, computed with zeros in their place: a flipped bit anywhere in the file is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.engine.sharding import local_part, spread, whole
from vr_pipeline.errors import InputError, storage_explained
from vr_pipeline.storage.atomic import replaced

if TYPE_CHECKING:
    import torch

    from vr_pipeline.engine.optimisation import AveragedWeights

LogRows = list[dict[str, float]]

_KEY = "training"
"""The only entry of the header's metadata: safetensors writes several in an order that changes from run to run."""
_SEAL_AT = 8 + len(f'{{"__metadata__":{{"{_KEY}":"')
"""Where the file's hash stands: behind the header's length and the beginning of its metadata."""
_NO_SEAL = b"0" * 64
_CHUNK = 1 << 20


@dataclass(frozen=True)
class BestWeights:
    """The weights that were validated best so far.

    Attributes:
        step: after which they were validated; 0 if nothing was validated yet.
        value: what they got, higher is better.
        weights: copies on the CPU, in the order of the trained parameters; of what this process holds of them.
    """

    step: int = 0
    value: float = -math.inf
    weights: tuple[torch.Tensor, ...] = ()

    def improved(self, step: int, value: float, weights: Sequence[torch.Tensor]) -> BestWeights:
        """Return these, or a copy of the given ones if their value is higher."""
        if not value > self.value:
            return self
        return BestWeights(step, value, tuple(local_part(weight.detach()).cpu().clone() for weight in weights))

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
        optimizers: their optimisers.
        average: their running average, if one is kept.
        step: steps that are done.
        rows: training log up to this step.
        best: the weights that were validated best so far.
        finished: the training is over, and ``weights`` are its result. Then only they are kept.
    """

    weights: Sequence[torch.Tensor]
    optimizers: Sequence[torch.optim.Optimizer]
    average: AveragedWeights | None = None
    step: int = 0
    rows: LogRows = field(default_factory=list)
    best: BestWeights = field(default_factory=BestWeights)
    finished: bool = False

    def optimizer_states(self) -> list[Any]:
        """Return for each weight the table in which its optimiser keeps the weight's state."""
        tables = {
            id(weight): optimizer.state
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for weight in group["params"]
        }
        return [tables[id(weight)] for weight in self.weights]


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

    for index, (weight, optimizer_state) in enumerate(zip(state.weights, state.optimizer_states(), strict=True)):
        keep(f"weight.{index}", weight)
        if state.finished:
            continue
        for name, value in sorted(optimizer_state[weight].items()):
            keep(f"optimizer.{index}.{name}", value)
        if state.average is not None:
            keep(f"average.{index}", state.average.average[index])
        if state.best.weights:
            keep(f"best.{index}", whole(state.best.weights[index], like=weight.detach()))
    if not main:
        return
    best = {"step": state.best.step, "value": state.best.value}
    header = {"identity": identity, "step": state.step, "log": state.rows, "best": best, "numbers": numbers}
    write_state(path, tensors, header, finished=state.finished)


def write_state(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any], *, finished: bool) -> None:
    """Replace the file of a training's state; a kill while writing leaves the one before.

    Args:
        path: safetensors file.
        tensors: on the CPU, contiguous, none sharing memory with another.
        header: what else there is, as JSON can hold it.
        finished: it holds the result of the training, not a state on the way.

    Raises:
        InputError: if the disk is full, or the folder cannot be written.
    """
    from safetensors.torch import save_file

    text = f"{_NO_SEAL.decode()} {json.dumps({**header, 'finished': finished})}"
    with storage_explained(path, "the checkpoint before is kept"), replaced(path) as temporary:
        save_file(dict(tensors), temporary, metadata={_KEY: text})
        with temporary.open("r+b") as file:
            digest = _digest(temporary)
            file.seek(_SEAL_AT)
            file.write(digest.encode())


def _digest(path: Path) -> str:
    """SHA-256 of a state's file with zeros where its own hash stands."""
    with path.open("rb") as file:
        start = file.read(_SEAL_AT)
        file.read(len(_NO_SEAL))
        digest = hashlib.sha256(start + _NO_SEAL)
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _seal(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_SEAL_AT + len(_NO_SEAL))[_SEAL_AT:].decode("ascii", "replace")


@contextmanager
def open_state(path: Path, *, device: str = "cpu") -> Iterator[tuple[Any, dict[str, Any]]]:
    """A training's state, verified and opened by safetensors within the block: file and header.

    Args:
        path: the file.
        device: where its tensors are read to.

    Raises:
        InputError: if the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if _seal(path) != _digest(path):
            raise SafetensorError("its content does not have the hash that was recorded when it was written")
        with safe_open(path, framework="pt", device=device) as file:
            yield file, _header(file)
    except SafetensorError as error:
        raise InputError(
            f"the checkpoint of a training is damaged ({error})",
            file=path,
            remedy="delete it; the training then starts from the beginning",
        ) from error


def _header(file: Any) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(file.metadata()[_KEY].partition(" ")[2])
    return header


def load_checkpoint(path: Path, state: TrainingState, *, identity: str, retrain: bool = False) -> None:
    """Put what a checkpoint holds into the state; nothing if there is none, or one of another training.

    Args:
        path: the file.
        state: takes what it holds.
        identity: hash of everything that determines the training.
        retrain: leave the result of a finished training alone.

    Raises:
        InputError: if the file is damaged.
    """
    if not path.is_file():
        return
    with open_state(path) as (file, header):
        if header["identity"] == identity and not (retrain and header["finished"]):
            state.finished = header["finished"]
            _restore(state, {name: file.get_tensor(name) for name in file.keys()}, header)  # noqa: SIM118
            # The time of its last use, by which keep_newest goes.
            os.utime(path)


def _restore(state: TrainingState, tensors: dict[str, torch.Tensor], header: dict[str, Any]) -> None:
    import torch

    values: dict[str, Any] = {**tensors, **header["numbers"]}
    best = []
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
            if f"best.{index}" in tensors:
                best.append(local_part(spread(tensors[f"best.{index}"], like)).cpu())
    state.step, state.rows = header["step"], header["log"]
    state.best = BestWeights(weights=tuple(best), **header["best"])


def keep_newest(folder: Path, count: int) -> None:
    """Remove what trainings left in a folder but for those that were written or taken up last.

    To be called when nothing trains there.
    """
    files = sorted(folder.glob("[!.]*.safetensors"), key=lambda path: (-path.stat().st_mtime_ns, path.name))
    for path in files[count:]:
        path.unlink()
