"""Latents of clips."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import batches
from vr_pipeline.training.shards import Tensors, only_numbers, plan_shards
from vr_pipeline.video.clip import VideoReadError
from vr_pipeline.work import WorkPlan

if TYPE_CHECKING:
    from vr_pipeline.generators.contract import Generator

logger = logging.getLogger(__name__)


class Clips(Protocol):
    """Clips by identifier, such as a folder of items."""

    def __contains__(self, key: object) -> bool: ...

    def load(self, key: str) -> Any:
        """Return a clip, uint8 [frames, height, width, 3]."""


def plan_latents(
    folder: Clips, index: pd.DataFrame, video_ids: Sequence[str], parameters: GeneratorParameters, shard_size: int
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


def _encode(generator: Generator, folder: Clips, video_ids: Sequence[str]) -> Tensors:
    import numpy as np
    import torch

    encoded: Tensors = {}
    for part in batches(len(video_ids), generator.parameters.batch_size):
        frames = {}
        for name in video_ids[part]:
            try:
                frames[name] = folder.load(name)
            except VideoReadError as error:
                # A clip that breaks off in its middle; as with latents that are no numbers, its pairs are left out.
                logger.warning("A clip is set aside, and pairs with it are not trained on: %s", error)
                encoded[name] = torch.empty(0)
        if frames:
            latents = generator.encode_frames(np.stack(list(frames.values())))
            encoded |= {name: row.clone() for name, row in zip(frames, latents, strict=True)}
    return only_numbers(encoded, "latents")
