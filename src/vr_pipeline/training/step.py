"""One step's batch and its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Condition, Generator
from vr_pipeline.generators.residuals import Residuals, mean_product
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.preferences.segments import read_segments, segments_of_frames
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.losses import sdpo_scale
from vr_pipeline.training.objectives import Inputs
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.safeguards import norm_hinge, norm_ratio, with_scaled_gradient

if TYPE_CHECKING:
    import torch


References = Callable[[Sequence[tuple[TrainingPair, int]]], "torch.Tensor"]


@dataclass(frozen=True)
class Batch:
    """Winners first, then losers in the same order, noise and timesteps repeated accordingly; or single clips.

    Attributes:
        latents: [2 pairs, ...] or [clips, ...], like all that follows.
        noise: the same shape; of pairs both halves are equal.
        timesteps: [2 pairs]; both halves are equal.
        condition: text conditions, every tensor [2 pairs, ...].
        rewards: rewards as needed by the loss, [2 pairs].
        weights: weights of pairs, [pairs]; None if all are 1.
        segments: segments of latent frames, [pairs, frames]; None if the objective uses none.
        reference: stored errors of the original and norms of its predictions, [2, samples]; None without.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    condition: Condition
    rewards: torch.Tensor
    weights: torch.Tensor | None
    segments: torch.Tensor | None = None
    reference: torch.Tensor | None = None


def collate(
    generator: Generator,
    chosen: Sequence[tuple[TrainingPair, int]],
    data: PairData,
    parameters: PreferenceTrainingParameters,
) -> Batch:
    """Make the batch of some pairs, each with its epoch, on the denoiser's device.

    Noise and timestep depend only on the seed, the pair's identifier and the epoch, not on batch size, order or number
    of processes.
    """
    import torch

    device, latents, conditions = next(generator.denoiser.parameters()).device, data.latents, data.conditions
    for pair, _ in chosen:
        for what, key, tensors in (
            *(("latents of the clip", clip, [latents[clip]]) for clip in pair.clips),
            ("text condition of the prompt", pair.prompt_id, list(conditions[pair.prompt_id].values())),
        ):
            if not all(bool(tensor.isfinite().all()) for tensor in tensors):
                raise InputError(
                    f"values of the {what} '{key}' in the pair '{pair.pair_id}' are not finite",
                    remedy="delete the stored latents and text conditions and run dpo_training from its start",
                )
    sides = [[(pair, pair.winner, pair.winner_reward) for pair, _ in chosen]]
    if all(pair.loser for pair, _ in chosen):
        sides.append([(pair, pair.loser, pair.loser_reward) for pair, _ in chosen])
    members = [member for side in sides for member in side]
    noises, timesteps = [], []
    for pair, epoch in chosen:
        random = torch.Generator().manual_seed(
            sample_seed(parameters.seed, f"noise of {pair.pair_id}", parameters.draw_of(epoch))
        )
        timesteps.append(generator.draw_timesteps(1, random))
        noises.append(torch.randn(latents[pair.winner].shape, generator=random))
    noise, time = torch.cat([torch.stack(noises)] * len(sides)), torch.cat(timesteps * len(sides))
    if parameters.noise == "prior":
        noise = torch.stack([_noise_of(generator, pair, clip, latents[clip].shape) for pair, clip, _ in members])
    texts = [conditions[pair.prompt_id] for pair, _, _ in members]
    weights = torch.tensor([pair.weight for pair, _ in chosen]) if parameters.rarity_exponent else None
    return Batch(
        latents=torch.stack([latents[clip] for _, clip, _ in members]).to(device),
        noise=noise.to(device),
        timesteps=time.to(device),
        condition={name: torch.cat([text[name] for text in texts]).to(device) for name in texts[0]},
        rewards=torch.tensor([reward for _, _, reward in members]).to(device),
        weights=None if weights is None else weights.to(device),
        segments=_segments(generator, chosen, latents).to(device) if parameters.objective.of_segments else None,
    )


def _segments(
    generator: Generator, chosen: Sequence[tuple[TrainingPair, int]], latents: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """Return the segment of every latent frame of some pairs that is not given, [pairs, frames]."""
    import torch

    axis = generator.frame_axis
    numbers = []
    for pair, _ in chosen:
        # A clip's latents have no batch axis.
        count = 1 if axis is None else latents[pair.winner].shape[axis - 1]
        segments, copies = read_segments(pair.segments), generator.leading_copies
        shown = segments_of_frames(segments, count - copies, generator.parameters.num_frames, generator.lone_frames)
        numbers.append(([0] * copies + shown)[generator.given_frames :])
    return torch.tensor(numbers)


def _noise_of(generator: Generator, pair: TrainingPair, clip: str, shape: Sequence[int]) -> torch.Tensor:
    """Return the initial noise from which a clip of a pair was sampled.

    Raises:
        InputError: its seed is unknown, or the generator is not a rectified flow.
    """
    seed = pair.seeds[pair.clips.index(clip)]
    if seed is None:
        raise InputError(
            f"the initial noise of the clip {clip!r} is unknown: this generator, with these settings, did not make it",
            field="training.noise",
            remedy="set it to drawn, or train on clips of video_generation with the current configuration of the "
            "generator",
        )
    return generator.initial_noise(shape, seed)


def accumulate_gradients(
    generator: Generator,
    chosen: Sequence[tuple[TrainingPair, int]],
    data: PairData,
    parameters: PreferenceTrainingParameters,
    *,
    pairs_of_step: int | None = None,
    scale: float = 1.0,
    references: References | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Compute loss and statistics of some pairs, and accumulate gradients, ``micro_batch_size`` pairs at a time.

    Args:
        generator: its trained weights get the gradients.
        chosen: the pairs, each with its epoch.
        data: their latents and text conditions.
        parameters: settings.
        pairs_of_step: number of pairs of the whole step, if these are a share; the loss is their part of its mean.
        scale: multiplies gradients, but not the loss.
        references: returns errors of the original and norms of its predictions, [2, samples]; None computes them.

    Returns:
        the loss, and statistics of shape [pairs].
    """
    import torch

    count = pairs_of_step or len(chosen)
    size = parameters.micro_batch_size or len(chosen)
    losses, parts = [], []
    for start in range(0, len(chosen), size):
        some = chosen[start : start + size]
        batch = collate(generator, some, data, parameters)
        if references is not None:
            batch = replace(batch, reference=references(some).to(batch.latents.device))
        loss, statistics = pair_loss(generator, batch, parameters)
        loss = loss * (len(some) / count)
        (loss * scale if scale != 1.0 else loss).backward()
        losses.append(loss.detach())
        parts.append(statistics)
    return torch.stack(losses).sum(), {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class Reference(NamedTuple):
    """Results of the frozen original for a batch.

    Attributes:
        error: of its prediction, [samples].
        norm: of its prediction, [samples].
        prediction: [samples, ...]; None if only errors and norms are stored.
        frame_error: of its prediction, [samples, frames]; None unless the objective uses segments.
    """

    error: torch.Tensor
    norm: torch.Tensor
    prediction: torch.Tensor | None = None
    frame_error: torch.Tensor | None = None


def pair_loss(
    generator: Generator, batch: Batch, parameters: PreferenceTrainingParameters
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss of a batch, and detached statistics of its pairs, [pairs].

    Statistics are those of the objective, errors of policy and reference, ratios of the norms of their predictions, and
    the scale of the losers' gradients if it is used.
    """
    import torch

    def residuals() -> Residuals:
        with generator.autocast():
            return generator.residuals(batch.latents, batch.noise, batch.timesteps, batch.condition)

    policy, reference = residuals(), None
    if parameters.uses_reference and batch.reference is not None:
        reference = Reference(*batch.reference)
    elif parameters.uses_reference:
        with torch.no_grad(), generator.reference():
            original = residuals()
        frames = original.frame_error() if batch.segments is not None else None
        reference = Reference(original.error(), original.norm(), original.prediction, frames)
    error = policy.error()
    loss, statistics = _objective(policy, error, reference, batch, parameters, generator)
    error = error.detach()
    of_sides = _of_clips if parameters.objective.of_clips else _of_sides
    statistics |= of_sides("error", error)
    if reference is not None:
        reference_error = reference.error
        ratio = norm_ratio(policy.norm(), reference.norm)
        guard = parameters.safeguard
        if guard.norm_ratio_weight:
            loss = loss + guard.norm_ratio_weight * norm_hinge(ratio, guard.norm_ratio_limit).mean()
        statistics |= of_sides("change", error - reference_error)
        statistics |= of_sides("reference_error", reference_error)
        statistics |= of_sides("norm_ratio", ratio.detach())
    return loss, statistics


def _objective(
    policy: Residuals,
    error: torch.Tensor,
    reference: Reference | None,
    batch: Batch,
    parameters: PreferenceTrainingParameters,
    generator: Generator,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return loss and statistics of the objective, with the settings common to all objectives."""
    objective = parameters.objective
    known: dict[str, Any] = {"error": error, "reward": batch.rewards}
    more: dict[str, torch.Tensor] = {}
    if reference is not None:
        known["reference_error"] = reference.error
        if objective.takes("deviation") and reference.prediction is not None:
            difference = policy.prediction.float() - reference.prediction.float()
            known["deviation"] = mean_product(difference, difference)
    if not objective.of_clips:
        winner, loser = error.chunk(2)
        if batch.segments is not None:
            known["segments"] = batch.segments
            frames, more = _frame_errors(policy, batch.segments, parameters.safeguard.sdpo_mu)
            known |= frames
            if reference is not None and reference.frame_error is not None:
                known |= _of_sides("reference_frame_error", reference.frame_error)
        elif (mu := parameters.safeguard.sdpo_mu) is not None:
            scale = sdpo_scale(winner, mean_product(*policy.residual.detach().chunk(2)), mu)
            loser, more = with_scaled_gradient(loser, scale), {"sdpo_scale": scale}
        known |= {"winner_error": winner, "loser_error": loser, "pair_weights": batch.weights}
        if reference is not None:
            known |= _of_sides("reference_error", known["reference_error"])
        if parameters.beta_falls_with_noise:
            known["timesteps"] = generator.noise_share(batch.timesteps).chunk(2)[0]
    if parameters.strength == "beta_t_omega":
        known["training_timesteps"] = generator.training_timesteps
    loss, statistics = objective.compute(Inputs(**known), parameters)
    if batch.weights is not None:
        # A mean of weighted losses, so that the parts of a step add up.
        loss = loss * batch.weights.mean()
    if parameters.supervised_weight:
        loss = loss + parameters.supervised_weight * known["winner_error"].mean()
    return loss, statistics | more


def _frame_errors(
    policy: Residuals, segments: torch.Tensor, mu: float | None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return errors on latent frames of winners and losers, [pairs, frames], and statistics.

    With SDPO, the gradient of the worse clip is scaled in every frame.
    """
    import torch

    winner, loser = policy.frame_error().chunk(2)
    more: dict[str, torch.Tensor] = {}
    if mu is not None:
        first, second = policy.residual.detach().chunk(2)
        product = policy.frame_means(first * second)
        turned = segments < 0
        better = torch.where(turned, loser, winner)
        scale = sdpo_scale(better.flatten(), product.flatten(), mu).view_as(better)
        winner, loser = (
            torch.where(worse, with_scaled_gradient(error, scale), error)
            for error, worse in ((winner, turned), (loser, ~turned))
        )
        more["sdpo_scale"] = scale.mean(dim=1)
    return {"winner_frame_error": winner, "loser_frame_error": loser}, more


def _of_sides(name: str, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Name the halves of a batch of pairs: ``winner_<name>`` and ``loser_<name>``, each [pairs]."""
    winners, losers = values.chunk(2)
    return {f"winner_{name}": winners, f"loser_{name}": losers}


def _of_clips(name: str, values: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: values}
