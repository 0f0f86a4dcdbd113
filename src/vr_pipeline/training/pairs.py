"""Training pairs, their rewards and their weights."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition
from vr_pipeline.identifiers import pair_id
from vr_pipeline.preferences.segments import read_segments
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.losses import pair_rarity_weights

if TYPE_CHECKING:
    import torch

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
        seeds: of the initial noise of winner and loser; None if unknown.
        segments: preferences by segment, ``a`` for the winner and ``b`` for the loser, in the format of
            :mod:`vr_pipeline.preferences.segments`; empty without.
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
    """Data of a training.

    Attributes:
        pairs: at least one.
        latents: latents of clips by key, each [...].
        conditions: text conditions by prompt identifier, every tensor [1, ...].
        contents: hash of the contents of clips and prompts; part of the training's identity.
    """

    pairs: Sequence[TrainingPair]
    latents: Mapping[str, torch.Tensor]
    conditions: Mapping[str, Condition]
    contents: str = ""

    def check_complete(self) -> None:
        """Check that there are pairs, and all their latents and text conditions.

        Raises:
            InputError: there are no pairs, or a pair's latents or text condition are missing.
        """
        if not self.pairs:
            raise InputError(
                "there are no preference pairs to train on",
                remedy="lower pair_selection's margin, make more videos per prompt, or check the rewards",
            )
        for what, known, wanted in (
            ("latents", set(self.latents), {name for pair in self.pairs for name in pair.clips}),
            ("text condition", set(self.conditions), {pair.prompt_id for pair in self.pairs}),
        ):
            missing = sorted(wanted - known)
            if missing:
                raise InputError(
                    f"{len(missing)} of {len(wanted)} have no {what}, for instance {missing[0]!r}",
                    remedy="run the pipeline dpo_training from its start, which encodes all clips and prompts",
                )


def prepare_pairs(pairs: Sequence[TrainingPair], parameters: PreferenceTrainingParameters) -> tuple[TrainingPair, ...]:
    """Return pairs, or single clips if the objective learns from those, with the rewards and weights of the loss.

    Rewards are normalised for the objective: to mean 0 and deviation 1 over the clips of the training set, or, if it
    compares within prompts, to 0 to 1 with 1/2 for the mean of the prompt. Weights are those of rare scores, divided by
    their mean, so that the size of steps does not change.

    Raises:
        InputError: the loss needs pairs and there are single clips; or it needs rewards, and all clips have the same
            one, or one is not finite.
    """
    objective = parameters.objective
    if objective.of_clips:
        pairs = single_clips(pairs)
    elif alone := [pair for pair in pairs if not pair.loser]:
        raise InputError(
            f"the loss compares pairs of clips, but {len(alone)} of {len(pairs)} are single clips, for instance "
            f"{alone[0].winner!r}",
            field="training.loss",
            remedy="choose a loss for single clips, or run the pipeline from pair_selection on",
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
            "the loss needs the clips' rewards, but they are all the same or not finite",
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
    """Return the pairs with a labelled segment; a warning counts the others.

    Raises:
        InputError: there is none.
    """
    labelled = [pair for pair in pairs if any(segment.label for segment in read_segments(pair.segments))]
    if not labelled:
        raise InputError(
            f"the loss compares segments of clips, but none of {len(pairs)} pairs has a labelled segment",
            field="training.loss",
            remedy="add a column 'segments' to the pairs, for instance a,b,tie,a, or choose a loss for whole clips",
        )
    if len(labelled) < len(pairs):
        unlabelled = len(pairs) - len(labelled)
        logger.warning("%d of %d pairs are left out: they have no labelled segment", unlabelled, len(pairs))
    return labelled


def single_clips(pairs: Sequence[TrainingPair]) -> list[TrainingPair]:
    """Return the clips of pairs, once per prompt; single clips are unchanged."""
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
            "the loss compares the rewards of a prompt's clips, but no prompt has two clips",
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
    # The mean over sorted values does not depend on the order of the pairs, not even in the last bit.
    return weights / np.sort(weights).mean()  # type: ignore[no-any-return]


def without(pairs: Sequence[TrainingPair], clips: Collection[str], prompts: Collection[str]) -> list[TrainingPair]:
    """Return the pairs without clips or prompts for which the encoders returned NaN.

    Raises:
        InputError: none is left.
    """
    kept = [pair for pair in pairs if pair.prompt_id not in prompts and not set(pair.clips).intersection(clips)]
    if len(kept) < len(pairs):
        logger.warning(
            "%d of %d pairs are left out: the encoders returned NaN for %d clips and %d prompts",
            len(pairs) - len(kept),
            len(pairs),
            len(clips),
            len(prompts),
        )
    if pairs and not kept:
        raise InputError(
            f"the encoders returned NaN for the clips or prompts of all {len(pairs)} pairs",
            field="generator.dtype",
            remedy="encode in bfloat16 or float32, or check the model's weights",
        )
    return kept
