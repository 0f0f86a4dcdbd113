"""Training data of a latent reward: labelled pairs, latents of their clips, conditions of their prompts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition, Generator
from vr_pipeline.identifiers import content_hash, sample_seed
from vr_pipeline.training.latent_reward.labels import LABEL_COLUMN

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatentPair:
    """Two clips of one prompt.

    Attributes:
        pair_id: identifier from which order, time and noise derive.
        prompt_id: key of the text condition.
        clips: keys of the latents.
        row: of the table.
    """

    pair_id: str
    prompt_id: str
    clips: tuple[str, str]
    row: int


@dataclass(frozen=True, eq=False)
class LatentPairs:
    """Labelled pairs with latents and text conditions.

    Attributes:
        table: schema ``LatentRewardPairs``.
        latents: latents of clips by video_id, each [...].
        conditions: text conditions by prompt_id, every tensor [1, ...].
    """

    table: pd.DataFrame
    latents: Mapping[str, torch.Tensor]
    conditions: Mapping[str, Condition]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The dimensions."""
        columns = [str(name) for name in self.table.columns if str(name).startswith(LABEL_COLUMN)]
        return tuple(name.removeprefix(LABEL_COLUMN) for name in columns)

    @cached_property
    def label(self) -> NDArray[np.float64]:
        """1 (the first is preferred), 0 (tie), -1 or NaN (masked), [pairs, dimensions]."""
        return self.table[[f"{LABEL_COLUMN}{name}" for name in self.names]].to_numpy(dtype=np.float64)

    @cached_property
    def pairs(self) -> list[LatentPair]:
        """The pairs, in the order of the table."""
        columns = [self.table[name].astype(str) for name in ("pair_id", "prompt_id", "video_id_a", "video_id_b")]
        return [
            LatentPair(pair, prompt, (first, second), row)
            for row, (pair, prompt, first, second) in enumerate(zip(*columns, strict=True))
        ]

    def of(self, split: str) -> list[LatentPair]:
        """Return the pairs of one side of the split."""
        return [self.pairs[row] for row in np.flatnonzero(self.table["split"] == split).tolist()]

    def contents(self) -> str:
        """Hash the pairs: prompts, clips, split and labels."""
        columns = ["pair_id", "prompt", "video_id_a", "video_id_b", "sha256_a", "sha256_b", "split"]
        texts = self.table[columns].astype(str).itertuples(index=False, name=None)
        rows = zip(texts, self.label.tolist(), strict=True)
        return content_hash(
            "latent pairs", *self.names, *sorted(content_hash(*text, repr(label)) for text, label in rows)
        )

    def usable(self, set_aside: set[str], prompts_set_aside: set[str]) -> LatentPairs:
        """Return the pairs without those for which the encoders returned NaN.

        Raises:
            InputError: none is left, or other latents or conditions are missing.
        """
        table = self.table
        lost = table["prompt_id"].isin(prompts_set_aside)
        for side in ("video_id_a", "video_id_b"):
            lost |= table[side].isin(set_aside)
        if lost.any():
            logger.warning("%d of %d pairs are left out: the encoders returned NaN", int(lost.sum()), len(table))
        kept = LatentPairs(table[~lost].reset_index(drop=True), self.latents, self.conditions)
        missing = sorted({clip for pair in kept.pairs for clip in pair.clips}.difference(self.latents))
        missing += sorted({pair.prompt_id for pair in kept.pairs}.difference(self.conditions))
        if missing or not len(kept.table):
            raise InputError(
                f"{len(missing)} clips or prompts are not encoded, for instance '{missing[0]}'"
                if missing
                else "the encoders returned NaN for the clips or prompts of every pair",
                field="latent_reward_training",
                remedy="run the pipeline latent_reward_training from its start",
            )
        return kept


@dataclass(frozen=True)
class NoisedPairs:
    """A batch: first clips, then second clips in the same order, at the same times.

    Attributes:
        noised: x_t, [2 pairs, ...].
        timesteps: on the generator's own scale, [2 pairs].
        condition: every tensor [2 pairs, ...].
    """

    noised: torch.Tensor
    timesteps: torch.Tensor
    condition: Condition


def noise_pairs(
    generator: Generator,
    data: LatentPairs,
    pairs: Sequence[LatentPair],
    draws: Sequence[tuple[int, tuple[float, float]]],
    seed: int,
    *,
    one_noise: bool = True,
) -> NoisedPairs:
    """Noise each pair at one time, with the same noise for both clips or separate noise.

    Time and noise depend only on the seed, the pair's identifier and the number of the draw, not on batch size, order
    or number of processes.

    Args:
        generator: defines the schedule of times.
        data: latents and conditions.
        pairs: of the batch.
        draws: for each pair the number of the draw, and the range of times.
        seed: base seed.
        one_noise: whether both clips of a pair have the same noise.

    Returns:
        the batch, on the CPU.
    """
    import torch

    shares = []
    noises: list[list[torch.Tensor]] = [[], []]
    for pair, (draw, (low, high)) in zip(pairs, draws, strict=True):
        random = torch.Generator().manual_seed(sample_seed(seed, f"latent reward {pair.pair_id}", draw))
        shares.append(low + (high - low) * torch.rand(1, generator=random))
        shape = data.latents[pair.clips[0]].shape
        noises[0].append(torch.randn(shape, generator=random))
        noises[1].append(noises[0][-1] if one_noise else torch.randn(shape, generator=random))
    timesteps = generator.timesteps_at(torch.cat(shares * 2))
    latents = torch.stack([data.latents[pair.clips[side]] for side in (0, 1) for pair in pairs]).float()
    texts = [data.conditions[pair.prompt_id] for pair in pairs] * 2
    return NoisedPairs(
        noised=generator.add_noise(latents, torch.stack(noises[0] + noises[1]), timesteps),
        timesteps=timesteps,
        condition={name: torch.cat([text[name] for text in texts]) for name in texts[0]},
    )


def clips_of(pairs: pd.DataFrame) -> pd.DataFrame:
    """List the clips of a table of pairs, each once: video_id and sha256."""
    sides = [pairs[[f"video_id_{side}", f"sha256_{side}"]].set_axis(["video_id", "sha256"], axis=1) for side in "ab"]
    return pd.concat(sides).drop_duplicates("video_id", ignore_index=True)
