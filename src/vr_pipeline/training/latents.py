"""Latents of clips."""

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator, batches
from vr_pipeline.training.shards import Tensors, only_numbers, plan_shards
from vr_pipeline.video.clip import VideoReadError
from vr_pipeline.work import WorkPlan

logger = logging.getLogger(__name__)


class Clips(Protocol):
    """Clips by identifier, such as a folder of items."""

    def __contains__(self, key: object) -> bool: ...

    def load(self, key: str) -> Any:
        """Return a clip, uint8 [frames, height, width, 3]."""


def plan_latents(
    folder: Clips, index: pd.DataFrame, video_ids: Sequence[str], parameters: GeneratorParameters, shard_size: int
) -> WorkPlan:
    """Plan the latents of clips by video_id, ``shard_size`` clips per file.

    Clips are encoded in batches of the generator's batch size, which fits the device.

    Args:
        folder: the clips.
        index: their video index, with content hashes.
        video_ids: the needed clips.
        parameters: the generator whose autoencoder is used.
        shard_size: clips per shard.

    Raises:
        InputError: clips are missing.
    """
    hashes = dict(zip(index["video_id"].astype(str), index["sha256"].astype(str), strict=True))
    needed = sorted(set(video_ids))
    missing = [name for name in needed if name not in hashes or name not in folder]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(needed)} clips of the pairs are not among the videos, for instance {missing[0]!r}",
            remedy="run the pipelines from checklist_inference on, so that videos and pairs match",
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
                # A truncated clip; as for NaN latents, its pairs are left out.
                logger.warning("A clip is set aside, and its pairs are not used: %s", error)
                encoded[name] = torch.empty(0)
        if frames:
            latents = generator.encode_frames(np.stack(list(frames.values())))
            encoded |= {name: row.clone() for name, row in zip(frames, latents, strict=True)}
    return only_numbers(encoded, "latents")
