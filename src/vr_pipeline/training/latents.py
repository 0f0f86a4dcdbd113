"""Latents of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import batches
from vr_pipeline.training.shards import Tensors, only_numbers, plan_shards
from vr_pipeline.work import WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.generators.contract import Generator
    from vr_pipeline.items.folder import ItemFolder


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

    Raises:
        InputError: if clips are not there.
    """
    hashes = dict(zip(index["video_id"].astype(str), index["sha256"].astype(str), strict=True))
    needed = sorted(set(video_ids))
    missing = [name for name in needed if name not in hashes or name not in folder]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(needed)} clips of the pairs are not among the videos, {missing[0]!r} the first",
            remedy="run the pipelines from checklist_inference on, so that videos and pairs belong together",
        )
    return plan_shards(
        "latents",
        {name: hashes[name] for name in needed},
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
    return only_numbers(encoded, "latents")
