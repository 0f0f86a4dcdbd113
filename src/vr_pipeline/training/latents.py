"""Latents of clips, computed once and kept in shards under the identity of everything they depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import weights_identity
from vr_pipeline.identifiers import content_hash
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan

if TYPE_CHECKING:
    import torch

    from vr_pipeline.datasets.manifest import ItemFolder
    from vr_pipeline.generators.contract import Generator


def plan_latents(
    folder: ItemFolder, index: pd.DataFrame, video_ids: Sequence[str], parameters: GeneratorParameters, shard_size: int
) -> WorkPlan:
    """Plan one shard of latents for every ``shard_size`` clips.

    A shard's identity is made of the content hashes of its clips, the weights and the precision: a changed clip or
    model can never reuse an old shard.

    Args:
        folder: the clips.
        index: their video index.
        video_ids: clips that are needed.
        parameters: the generator whose autoencoder is used.
        shard_size: clips a shard, encoded together.
    """
    weights = weights_identity(parameters)
    hashes = index.set_index("video_id")["sha256"]
    needed = sorted(set(video_ids))
    items = []
    for start in range(0, len(needed), shard_size):
        members = needed[start : start + shard_size]
        contents = [hashes[name] for name in members]
        items.append(
            WorkItem(
                key=f"latents-{start // shard_size:06d}",
                identity=content_hash("latents", weights, parameters.dtype, *members, *contents),
                metadata={"video_ids": " ".join(members)},
            )
        )

    def setup() -> Generator:
        from vr_pipeline.generators import load_generator

        return load_generator(parameters)

    def make_batch(generator: Generator, batch: Sequence[WorkItem]) -> list[dict[str, torch.Tensor] | ItemFailure]:
        return [_encode_shard(generator, folder, str(item.metadata["video_ids"]).split()) for item in batch]

    return WorkPlan(items=items, make_batch=make_batch, batch_size=1, description="latents", setup=setup)


def _encode_shard(generator: Generator, folder: ItemFolder, video_ids: Sequence[str]) -> dict[str, Any]:
    import numpy as np

    latents = generator.encode_frames(np.stack([folder.load(video_id) for video_id in video_ids]))
    return {video_id: row.clone() for video_id, row in zip(video_ids, latents, strict=True)}


class LatentShards(Mapping[str, "torch.Tensor"]):
    """Latents by video_id, read from their shards when they are asked for.

    Shards are mapped, not loaded, so that memory does not grow with the number of clips.
    """

    def __init__(self, folder: ItemFolder) -> None:
        self._folder = folder
        self._shard_of: dict[str, str] = {}
        for key in folder.keys:
            names = self._open(folder.path(key)).keys()
            self._shard_of |= dict.fromkeys(names, key)
        self._open_shards: dict[str, Any] = {}

    @staticmethod
    def _open(path: Path) -> Any:
        from safetensors import safe_open

        return safe_open(path, framework="pt")

    def __getitem__(self, video_id: str) -> torch.Tensor:
        key = self._shard_of[video_id]
        if key not in self._open_shards:
            self._open_shards[key] = self._open(self._folder.path(key))
        return self._open_shards[key].get_tensor(video_id)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shard_of)

    def __len__(self) -> int:
        return len(self._shard_of)
