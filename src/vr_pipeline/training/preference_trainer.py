"""Training a generator on pairs of clips, the reference being the same network with the adapter switched off."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.generators.contract import Condition, Generator
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.determinism import deterministic

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPair:
    """One winner and one loser of a prompt.

    Attributes:
        pair_id: identifier from which order, noise and timestep derive.
        prompt_id: key of the text condition.
        winner: key of the winner's latents.
        loser: key of the loser's latents.
    """

    pair_id: str
    prompt_id: str
    winner: str
    loser: str


def learning_rate_factor(step: int, *, warmup_steps: int, steps: int) -> float:
    """Linear warm-up to 1, then linear decay that would reach 0 after the last step.

    Args:
        step: number of the step, from 1.
    """
    if step <= warmup_steps:
        return step / warmup_steps
    return (steps - step + 1) / max(1, steps - warmup_steps)


def pair_order(pairs: Sequence[TrainingPair], *, epoch: int, seed: int) -> list[int]:
    """The order of pairs in an epoch: by a hash of their identifiers, so that the order of the input is irrelevant."""
    return sorted(range(len(pairs)), key=lambda index: (sample_seed(seed, pairs[index].pair_id, epoch), index))


def train_on_pairs(
    generator: Generator,
    pairs: Sequence[TrainingPair],
    latents: Mapping[str, torch.Tensor],
    conditions: Mapping[str, Condition],
    parameters: PreferenceTrainingParameters,
    *,
    description: str = "train",
) -> pd.DataFrame:
    """Add an adapter to the generator and train it on the pairs.

    Winner and loser go through the network in one batch with the same noise and timestep. Both derive from the seed,
    the pair's identifier and the epoch, so that they do not depend on batch size, order or number of processes.

    Args:
        generator: receives the trained adapter.
        pairs: at least one.
        latents: latents of clips by key, each [...].
        conditions: text conditions by prompt identifier, every tensor [1, ...].
        parameters: settings.
        description: label of the progress bar.

    Returns:
        the training log, one row a step: loss, implicit accuracy, errors against the reference, quantiles of the term
        inside the sigmoid, saturation, gradient norm, learning rate.

    Raises:
        InputError: if there are no pairs.
        PipelineError: if the loss is not finite.
    """
    import torch

    if not pairs:
        raise InputError(
            "there are no preference pairs to train on",
            remedy="lower pair_selection's margin, make more videos a prompt, or check the rewards",
        )
    device = next(generator.denoiser.parameters()).device
    rows: list[dict[str, float]] = []
    with deterministic(parameters.threads):
        weights = generator.add_adapter(
            rank=parameters.adapter.rank,
            alpha=parameters.adapter.alpha,
            targets=parameters.adapter.targets,
            seed=sample_seed(parameters.seed, "adapter", 0),
        )
        optimizer = torch.optim.AdamW(
            weights, lr=parameters.learning_rate, weight_decay=parameters.weight_decay, fused=True
        )
        generator.denoiser.train()
        epoch, order = 0, pair_order(pairs, epoch=0, seed=parameters.seed)
        progress = tqdm(range(1, parameters.steps + 1), desc=description, unit="step", mininterval=1.0)
        for step in progress:
            chosen: list[tuple[TrainingPair, int]] = []
            while len(chosen) < parameters.batch_size:
                if not order:
                    epoch += 1
                    order = pair_order(pairs, epoch=epoch, seed=parameters.seed)
                chosen.append((pairs[order.pop(0)], epoch))
            batch = _collate(generator, chosen, latents, conditions, parameters.seed, device)
            loss, statistics = _loss(generator, batch, parameters)
            if not torch.isfinite(loss):
                raise PipelineError(
                    f"The loss is not finite at step {step} of {description}. Lower the learning rate "
                    f"({parameters.learning_rate}) or beta ({parameters.beta}), or train in float32; nothing of this "
                    "training was kept."
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(weights, parameters.max_gradient_norm)
            rate = parameters.learning_rate * learning_rate_factor(
                step, warmup_steps=min(parameters.warmup_steps, parameters.steps), steps=parameters.steps
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            row = _log_row(step, loss, statistics, norm, rate)
            rows.append(row)
            progress.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
        generator.denoiser.eval()
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Batch:
    """Winners first, then losers in the same order; noise and timesteps repeated accordingly."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    condition: Condition


def _collate(
    generator: Generator,
    chosen: Sequence[tuple[TrainingPair, int]],
    latents: Mapping[str, torch.Tensor],
    conditions: Mapping[str, Condition],
    seed: int,
    device: torch.device,
) -> _Batch:
    import torch

    noises, timesteps = [], []
    for pair, epoch in chosen:
        random = torch.Generator().manual_seed(sample_seed(seed, f"noise of {pair.pair_id}", epoch))
        timesteps.append(generator.draw_timesteps(1, random))
        noises.append(torch.randn(latents[pair.winner].shape, generator=random))
    noise, time = torch.stack(noises), torch.cat(timesteps)
    texts = [conditions[pair.prompt_id] for pair, _ in chosen] * 2
    return _Batch(
        latents=torch.stack(
            [latents[pair.winner] for pair, _ in chosen] + [latents[pair.loser] for pair, _ in chosen]
        ).to(device),
        noise=torch.cat([noise, noise]).to(device),
        timesteps=torch.cat([time, time]).to(device),
        condition={name: torch.cat([text[name] for text in texts]).to(device) for name in texts[0]},
    )


def _loss(
    generator: Generator, batch: _Batch, parameters: PreferenceTrainingParameters
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    import torch

    from vr_pipeline.training.losses import diffusion_dpo_loss, flow_dpo_loss, mapo_loss, supervised_loss

    arguments = (batch.latents, batch.noise, batch.timesteps, batch.condition)
    winner, loser = generator.prediction_error(*arguments).chunk(2)
    if parameters.loss in ("diffusion_dpo", "flow_dpo"):
        with torch.no_grad(), generator.reference():
            winner_reference, loser_reference = generator.prediction_error(*arguments).chunk(2)
        function = diffusion_dpo_loss if parameters.loss == "diffusion_dpo" else flow_dpo_loss
        loss, statistics = function(
            winner,
            loser,
            winner_reference,
            loser_reference,
            parameters.beta,
            label_smoothing=parameters.label_smoothing,
        )
    elif parameters.loss == "mapo":
        loss, statistics = mapo_loss(winner, loser, parameters.beta)
    else:
        loss, statistics = supervised_loss(winner)
    if parameters.supervised_weight:
        loss = loss + parameters.supervised_weight * winner.mean()
    return loss, statistics | {"winner_error": winner.detach(), "loser_error": loser.detach()}


def _log_row(
    step: int, loss: torch.Tensor, statistics: Mapping[str, torch.Tensor], norm: torch.Tensor, rate: float
) -> dict[str, float]:
    row = {"step": step, "loss": loss.item(), "gradient_norm": float(norm), "learning_rate": rate}
    for name, values in statistics.items():
        if name == "logit":
            low, middle, high = np.quantile(values.cpu().numpy(), [0.1, 0.5, 0.9])
            row |= {"logit_p10": float(low), "logit_p50": float(middle), "logit_p90": float(high)}
        else:
            row[name] = values.mean().item()
    return row
