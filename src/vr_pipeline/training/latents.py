"""Latents of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import batches
from vr_pipeline.training.shards import Tensors, plan_shards
from vr_pipeline.work import WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.datasets.manifest import ItemFolder
    from vr_pipeline.generators.contract import Generator


def plan_latents(
    folder: ItemFolder, index: pd.DataFrame, video_ids: Sequence[str], parameters: GeneratorParameters, shard_size: int
) -> WorkPlan:
    """Plan the latents of clips, by video_id, ``shard_size`` clips in one file.

    As many clips are encoded together as are sampled together: that many fit the device.

    Args:
        folder: the clips.
        index: their video index, which holds their content hashes.
        video_ids: clips that are needed.
        parameters: the generator whose autoencoder is used.
        shard_size: clips a shard.
    """
    hashes = index.set_index("video_id")["sha256"]
    return plan_shards(
        "latents",
        {name: str(hashes[name]) for name in sorted(set(video_ids))},
        lambda generator, names: _encode(generator, folder, names),
        parameters,
        part="autoencoder",
        settings=(parameters.batch_size, parameters.vae_tiling),
        size=shard_size,
    )


def _encode(generator: Generator, folder: ItemFolder, video_ids: Sequence[str]) -> Tensors:
    import numpy as np

    encoded: Tensors = {}
    for part in batches(len(video_ids), generator.parameters.batch_size):
        names = video_ids[part]
        latents = generator.encode_frames(np.stack([folder.load(name) for name in names]))
        encoded |= {name: row.clone() for name, row in zip(names, latents, strict=True)}
    return encoded
