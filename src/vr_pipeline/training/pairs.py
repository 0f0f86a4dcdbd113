"""Pairs of clips, the order in which a training goes through them, and what each of them weighs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import pair_id, sample_seed
from vr_pipeline.preferences.segments import read_segments
from vr_pipeline.training.config import PreferenceTrainingParameters

if TYPE_CHECKING:
    import torch

    from vr_pipeline.generators.contract import Condition

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPair:
    """One winner and one loser of a prompt; or one clip alone, for objectives that learn from clips.

    Attributes:
        pair_id: identifier from which order, noise and timestep derive.
        prompt_id: key of the text condition.
        winner: key of the winner's latents, or of the only clip's.
        loser: key of the loser's latents; empty for a clip alone.
        winner_reward: total reward of the winner; only some losses and weights use it.
        loser_reward: total reward of the loser.
        weight: share in the loss; 1 on average over the training set.
        seeds: of winner and loser, from which the generator drew their initial noise; None where they are not known.
        segments: in which parts of the clips the winner is better (``a``) or the loser (``b``), as
            :mod:`vr_pipeline.preferences.segments` writes it; empty where nobody said.
    """

    pair_id: str
    prompt_id: str
    winner: str
    loser: str
    winner_reward: float = 0.0
    loser_reward: float = 0.0
    weight: float = 1.0
    seeds: tuple[int | None, int | None] = (None, None)
    segments: str = ""

    @property
    def clips(self) -> tuple[str, ...]:
        """Keys of its latents: the winner's and the loser's, or the only clip's."""
        return (self.winner, self.loser) if self.loser else (self.winner,)


@dataclass(frozen=True)
class PairData:
    """What a training learns from.

    Attributes:
        pairs: at least one.
        latents: latents of clips by key, each [...].
        conditions: text conditions by prompt identifier, every tensor [1, ...].
        contents: hash of what the keys of clips and prompts stand for; part of the training's identity.
    """

    pairs: Sequence[TrainingPair]
    latents: Mapping[str, torch.Tensor]
    conditions: Mapping[str, Condition]
    contents: str = ""

    def check_complete(self) -> None:
        """Check that there is something to train on, and that nothing of it is missing.

        Raises:
            InputError: if there are no pairs, or a pair's latents or text condition are missing.
        """
        if not self.pairs:
            raise InputError(
                "there are no preference pairs to train on",
                remedy="lower pair_selection's margin, make more videos a prompt, or check the rewards",
            )
        for what, known, wanted in (
            ("latents", set(self.latents), {name for pair in self.pairs for name in pair.clips}),
            ("text condition", set(self.conditions), {pair.prompt_id for pair in self.pairs}),
        ):
            missing = sorted(wanted - known)
            if missing:
                raise InputError(
                    f"{len(missing)} of {len(wanted)} have no {what}, {missing[0]!r} the first",
                    remedy="run the pipeline dpo_training from its start, so that all clips and prompts of the pairs "
                    "are encoded",
                )


def pair_order(pairs: Sequence[TrainingPair], *, epoch: int, seed: int) -> list[int]:
    """Return the order of pairs in an epoch: by a hash of their identifiers, whatever the order of the input."""
    return sorted(range(len(pairs)), key=lambda index: (sample_seed(seed, pairs[index].pair_id, epoch), index))


class PairOrder:
    """The pair at every position of a training that goes through all pairs again and again, and its epoch."""

    def __init__(self, pairs: Sequence[TrainingPair], seed: int) -> None:
        self.pairs, self.seed = pairs, seed
        self.epoch = -1
        self.order: list[int] = []

    def __getitem__(self, position: int) -> tuple[TrainingPair, int]:
        epoch, place = divmod(position, len(self.pairs))
        if epoch != self.epoch:
            self.epoch, self.order = epoch, pair_order(self.pairs, epoch=epoch, seed=self.seed)
        return self.pairs[self.order[place]], epoch


def prepare_pairs(pairs: Sequence[TrainingPair], parameters: PreferenceTrainingParameters) -> tuple[TrainingPair, ...]:
    """Pairs, or single clips where the objective learns from those, with the rewards and weights that the loss uses.

    Rewards become those of the objective: of mean 0 and deviation 1 over the clips of the training set, or, where it
    compares within prompts, from 0 to 1 with 1/2 for the mean of the prompt. Weights become those of rare scores,
    divided by their mean, so that they leave the size of steps alone.

    Raises:
        InputError: if the loss needs pairs and there are single clips; or needs rewards, and all clips have the same
            one, or one is not finite.
    """
    objective = parameters.objective
    if objective.of_clips:
        pairs = single_clips(pairs)
    elif alone := [pair for pair in pairs if not pair.loser]:
        raise InputError(
            f"the loss compares pairs of clips, and {len(alone)} of {len(pairs)} are single clips, "
            f"{alone[0].winner!r} the first",
            field="training.loss",
            remedy="choose a loss that learns from clips, or run the pipeline from pair_selection on",
        )
    if objective.of_segments:
        pairs = with_segments(pairs)
    if not parameters.uses_rewards:
        return tuple(replace(pair, winner_reward=0.0, loser_reward=0.0, weight=1.0) for pair in pairs)
    totals = {(pair.prompt_id, pair.winner): pair.winner_reward for pair in pairs}
    totals |= {(pair.prompt_id, pair.loser): pair.loser_reward for pair in pairs if pair.loser}
    rewards = np.array([totals[name] for name in sorted(totals)])
    if not np.isfinite(rewards).all() or rewards.std() == 0:
        raise InputError(
            "the loss needs the clips' rewards, and they are all the same or not finite",
            field="training.loss" if objective.needs_rewards else "training.rarity_exponent",
            remedy="run the pipelines up to pair_selection again, or choose a loss that needs no rewards",
        )
    weights = _rarity_weights(pairs, rewards, parameters) if parameters.rarity_exponent else np.ones(len(pairs))
    ready = _within_prompts(totals) if objective.group_rewards else _normalised(totals)
    return tuple(
        replace(
            pair,
            winner_reward=ready[pair.prompt_id, pair.winner],
            loser_reward=ready[pair.prompt_id, pair.loser] if pair.loser else 0.0,
            weight=float(weight),
        )
        for pair, weight in zip(pairs, weights, strict=True)
    )


def with_segments(pairs: Sequence[TrainingPair]) -> list[TrainingPair]:
    """Return the pairs in which a segment is labelled; the others are counted in a warning.

    Raises:
        InputError: if there is none.
    """
    labelled = [pair for pair in pairs if any(segment.label for segment in read_segments(pair.segments))]
    if not labelled:
        raise InputError(
            f"the loss compares segments of clips, and none of {len(pairs)} pairs has a labelled segment",
            field="training.loss",
            remedy="give the pairs a column 'segments', such as a,b,tie,a, or choose a loss of whole clips",
        )
    if len(labelled) < len(pairs):
        unlabelled = len(pairs) - len(labelled)
        logger.warning("%d of %d pairs are left out: they have no labelled segment", unlabelled, len(pairs))
    return labelled


def single_clips(pairs: Sequence[TrainingPair]) -> list[TrainingPair]:
    """Return the clips of pairs, each once for its prompt; single clips stay as they are."""
    clips: dict[tuple[str, str], TrainingPair] = {}
    for pair in pairs:
        rewards = (pair.winner_reward, pair.loser_reward)
        for clip, reward, seed in zip(pair.clips, rewards, pair.seeds, strict=False):
            name = pair_id(pair.prompt_id, clip, "")
            clips[pair.prompt_id, clip] = TrainingPair(name, pair.prompt_id, clip, "", reward, seeds=(seed, None))
    return [clips[key] for key in sorted(clips)]


_Rewards = dict[tuple[str, str], float]
"""Reward of each clip, by prompt and clip."""


def _normalised(totals: _Rewards) -> _Rewards:
    values = np.array([totals[name] for name in sorted(totals)])
    return {name: float((value - values.mean()) / values.std()) for name, value in totals.items()}


def _within_prompts(totals: _Rewards) -> _Rewards:
    """Return 1/2 + clip((r - mean of the prompt) / s, -1, 1) / 2, s the deviation over all clips (DiffusionNFT)."""
    by_prompt: dict[str, list[float]] = {}
    for prompt, clip in sorted(totals):
        by_prompt.setdefault(prompt, []).append(totals[prompt, clip])
    means = {prompt: float(np.mean(values)) for prompt, values in by_prompt.items()}
    deviation = float(np.std([totals[name] for name in sorted(totals)]))
    if all(len(values) == 1 for values in by_prompt.values()):
        raise InputError(
            "the loss compares the rewards of a prompt's clips, and no prompt has two clips",
            field="training.loss",
            remedy="make several clips for every prompt, or choose another loss",
        )
    return {
        (prompt, clip): 0.5 + 0.5 * float(np.clip((value - means[prompt]) / deviation, -1.0, 1.0))
        for (prompt, clip), value in totals.items()
    }


def _rarity_weights(
    pairs: Sequence[TrainingPair], rewards: np.ndarray, parameters: PreferenceTrainingParameters
) -> np.ndarray:
    import torch

    from vr_pipeline.training.losses import pair_rarity_weights

    counts, edges = np.histogram(rewards, bins=parameters.rarity_bins)
    probabilities = counts / counts.sum()

    def probability(values: list[float]) -> torch.Tensor:
        return torch.from_numpy(probabilities[np.digitize(values, edges[1:-1])])

    weights = pair_rarity_weights(
        probability([pair.winner_reward for pair in pairs]),
        probability([pair.loser_reward for pair in pairs]),
        parameters.rarity_exponent,
        maximum=float(probabilities.max()),
    ).numpy()
    # The mean over sorted values, so that the order of the pairs is irrelevant to the last bit.
    return weights / np.sort(weights).mean()  # type: ignore[no-any-return]


def without(pairs: Sequence[TrainingPair], clips: Collection[str], prompts: Collection[str]) -> list[TrainingPair]:
    """Leave out pairs whose clips or prompts were set aside because the encoders gave no numbers for them.

    Raises:
        InputError: if none is left.
    """
    kept = [pair for pair in pairs if pair.prompt_id not in prompts and not set(pair.clips).intersection(clips)]
    if len(kept) < len(pairs):
        logger.warning(
            "%d of %d pairs are left out: for %d clips and %d prompts the encoders gave no numbers",
            len(pairs) - len(kept),
            len(pairs),
            len(clips),
            len(prompts),
        )
    if pairs and not kept:
        raise InputError(
            f"the encoders gave no numbers for the clips or prompts of all {len(pairs)} pairs",
            field="generator.dtype",
            remedy="encode in bfloat16 or float32, or check the model's weights",
        )
    return kept
