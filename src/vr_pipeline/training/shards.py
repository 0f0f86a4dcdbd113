"""Outputs of a generator's encoders, computed once and stored in shards whose identity covers all inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator, Part, resolve_device, weights_identity
from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.work import WorkItem, WorkPlan

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Tensors = dict[str, "torch.Tensor"]

MAPPED_SHARDS = 16
"""Number of shards kept mapped: opening one takes a millisecond, but mapped pages count as used memory."""


def plan_shards(
    kind: str,
    contents: Mapping[str, str],
    encode: Callable[[Generator, Sequence[str]], Tensors],
    parameters: GeneratorParameters,
    *,
    part: Part,
    settings: Sequence[object],
    size: int,
) -> WorkPlan:
    """Plan one file of tensors for every ``size`` entries to encode.

    A shard's identity covers its members and their contents, the weights, the precision and the settings, including the
    kind of device and the threads, which change rounding. After a change, no old shard is used.

    Args:
        kind: what is encoded, a plural noun; names the files.
        contents: key -> content of each entry (hash of a file, text).
        encode: makes the tensors of some keys with the generator.
        parameters: the generator.
        part: the only part of the generator that is loaded.
        settings: everything else that changes the tensors.
        size: entries per shard, encoded together.
    """
    base = content_hash(
        kind,
        parameters.family,
        weights_identity(parameters),
        parameters.dtype,
        resolve_device(parameters.device).partition(":")[0],
        str(parameters.threads),
        *(str(value) for value in settings),
    )
    names = sorted(contents)
    items = []
    for start in range(0, len(names), size):
        members = names[start : start + size]
        items.append(
            WorkItem(
                key=f"{kind}-{start // size:06d}",
                identity=content_hash(base, *members, *(contents[name] for name in members)),
                metadata={"members": " ".join(members)},
            )
        )

    def setup() -> Generator:
        return load_generator(parameters, (part,))

    def make_batch(generator: Generator, batch: Sequence[WorkItem]) -> list[Tensors]:
        return [encode(generator, str(item.metadata["members"]).split()) for item in batch]

    return WorkPlan(items=items, make_batch=make_batch, batch_size=1, description=kind, setup=setup)


def only_numbers(tensors: Mapping[str, torch.Tensor], what: str) -> Tensors:
    """Replace tensors that contain NaN or infinity by empty ones, with a warning.

    Args:
        tensors: by name.
        what: a plural noun for the warning.
    """
    lost = sorted(name for name, value in tensors.items() if not bool(value.isfinite().all()))
    if lost:
        logger.warning(
            "The %s of %d of %d are not finite and are set aside, for instance '%s': the encoder overflowed, or the "
            "model is damaged. Their pairs are not used; a dtype with more bits may help",
            what,
            len(lost),
            len(tensors),
            lost[0],
        )
    return {name: value.new_empty(0) if name in lost else value for name, value in tensors.items()}


class TensorShards(Mapping[str, "torch.Tensor"]):
    """Tensors by name, read from their shards on access.

    Only a few shards are mapped at a time, so memory does not grow with their number.

    Attributes:
        set_aside: names of tensors that were not finite (:func:`only_numbers`); they are not among the tensors.
    """

    def __init__(self, *folders: ItemFolder) -> None:
        self._mapped = lru_cache(MAPPED_SHARDS)(lambda place: self._open(folders[place[0]].path(place[1])))
        self._shard_of: dict[str, tuple[int, str]] = {}
        self.set_aside: set[str] = set()
        for number, key in ((number, key) for number, folder in enumerate(folders) for key in folder.keys):
            shard = self._open(folders[number].path(key))
            names = shard.keys()
            self._shard_of |= dict.fromkeys(names, (number, key))
            self.set_aside |= {name for name in names if shard.get_slice(name).get_shape() == [0]}
        for name in self.set_aside:
            del self._shard_of[name]

    @staticmethod
    def _open(path: Path) -> Any:
        from safetensors import safe_open

        return safe_open(path, framework="pt")

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._mapped(self._shard_of[name]).get_tensor(name)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __len__(self) -> int:
        return len(self._shard_of)
