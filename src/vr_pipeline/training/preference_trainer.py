"""Training a generator on pairs of clips, the reference being the same network with the adapter switched off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.generators.contract import Condition, Generator
from vr_pipeline.identifiers import content_hash, sample_seed
from vr_pipeline.training.checkpoints import BestWeights, LogRows, load_checkpoint, save_checkpoint
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.determinism import deterministic

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Validate = Callable[[int], float | None]
"""Judges the weights the generator holds, given the step: a reward, higher is better, or None for no judgement.

The generator's autoencoder and text encoder are not loaded while it trains; ``with generator.encoders():`` has them
for the length of a block. Weights must be left as they are.
"""

_COLLAPSE_WINDOW = 25
"""Steps over which the rule of collapse looks."""


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
    checkpoint: Path | None = None,
    validate: Validate | None = None,
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
        checkpoint: file that takes the state every ``checkpoint_every`` steps; a training that finds its own state
            there goes on from it. It is deleted at the end.
        validate: called after every ``checkpoint_every`` steps and after the last, when the generator holds the
            weights to judge; the generator is left with the weights that got the highest reward, the first of equals.

    Returns:
        the training log, one row a step: loss, implicit accuracy, errors against the reference, quantiles of the term
        inside the sigmoid, saturation, gradient norm, learning rate; with ``validate`` also ``validation_reward``, NaN
        where there was none.

    Raises:
        InputError: if there are no pairs, or a pair's latents or text condition are missing.
        PipelineError: if the loss is not finite, or the training collapses.
    """
    import torch

    if not pairs:
        raise InputError(
            "there are no preference pairs to train on",
            remedy="lower pair_selection's margin, make more videos a prompt, or check the rewards",
        )
    _check_complete(pairs, latents, conditions)
    device = next(generator.denoiser.parameters()).device
    identity = training_identity(generator, pairs, parameters)
    with deterministic(parameters.threads):
        weights = generator.add_adapter(
            rank=parameters.adapter.rank,
            alpha=parameters.adapter.alpha,
            targets=parameters.adapter.targets,
            seed=sample_seed(parameters.seed, "adapter", 0),
        )
        if parameters.gradient_checkpointing:
            generator.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
        # Dropout, where a configuration has any, would give policy and reference different networks.
        generator.denoiser.eval()
        optimizer = torch.optim.AdamW(
            weights, lr=parameters.learning_rate, weight_decay=parameters.weight_decay, fused=True
        )
        done, rows, best = 0, LogRows(), BestWeights()
        if checkpoint is not None:
            done, rows, best = load_checkpoint(checkpoint, identity=identity, weights=weights, optimizer=optimizer)
            if done:
                logger.info("%s: goes on after step %d of %d", description, done, parameters.steps)
        order = _Order(pairs, parameters.seed)
        progress = tqdm(
            range(done + 1, parameters.steps + 1),
            initial=done,
            total=parameters.steps,
            desc=description,
            unit="step",
            mininterval=1.0,
        )
        for step in progress:
            first = (step - 1) * parameters.batch_size
            chosen = [order[position] for position in range(first, first + parameters.batch_size)]
            optimizer.zero_grad(set_to_none=True)
            loss, statistics = _accumulate(generator, chosen, latents, conditions, parameters, device)
            if not torch.isfinite(loss):
                raise PipelineError(
                    f"The loss is not finite at step {step} of {description}. Lower the learning rate "
                    f"({parameters.learning_rate}) or beta ({parameters.beta}), or train in float32; nothing of this "
                    "training was kept."
                )
            norm = torch.nn.utils.clip_grad_norm_(weights, parameters.max_gradient_norm)
            rate = parameters.learning_rate * learning_rate_factor(
                step, warmup_steps=min(parameters.warmup_steps, parameters.steps), steps=parameters.steps
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            row = _log_row(step, loss, statistics, norm, rate)
            rows.append(row)
            _check_collapse(rows, parameters, description)
            progress.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            due = parameters.checkpoint_every and step % parameters.checkpoint_every == 0
            if validate is not None and (due or step == parameters.steps):
                best = _validate(validate, step, row, weights, best)
            if checkpoint is not None and due:
                save_checkpoint(
                    checkpoint, identity=identity, step=step, weights=weights, optimizer=optimizer, rows=rows, best=best
                )
        best.restore(weights)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return pd.DataFrame(rows)


def _validate(
    validate: Validate, step: int, row: dict[str, float], weights: Sequence[torch.Tensor], best: BestWeights
) -> BestWeights:
    reward = validate(step)
    if reward is None:
        return best
    row["validation_reward"] = float(reward)
    return best.improved(step, float(reward), weights)


def training_identity(
    generator: Generator, pairs: Sequence[TrainingPair], parameters: PreferenceTrainingParameters
) -> str:
    """Hash of what determines a training: the generator, the pairs whatever their order, and the settings."""
    return content_hash(
        "training",
        generator.identity,
        parameters.model_dump_json(exclude={"checkpoint_every"}),
        *sorted(f"{pair.pair_id} {pair.prompt_id} {pair.winner} {pair.loser}" for pair in pairs),
    )


def _check_complete(
    pairs: Sequence[TrainingPair], latents: Mapping[str, torch.Tensor], conditions: Mapping[str, Condition]
) -> None:
    for what, known, wanted in (
        ("latents", latents, {name for pair in pairs for name in (pair.winner, pair.loser)}),
        ("text condition", conditions, {pair.prompt_id for pair in pairs}),
    ):
        missing = sorted(wanted - set(known))
        if missing:
            raise InputError(
                f"{len(missing)} of {len(wanted)} have no {what}, {missing[0]!r} the first",
                remedy="run the pipeline dpo_training from its start, so that all clips and prompts of the pairs are "
                "encoded",
            )


def _check_collapse(rows: LogRows, parameters: PreferenceTrainingParameters, description: str) -> None:
    recent = rows[-_COLLAPSE_WINDOW:]
    if len(recent) < _COLLAPSE_WINDOW or "winner_change" not in recent[-1]:
        return
    loss = float(np.mean([row["loss"] for row in recent]))
    change = float(np.mean([row["winner_change"] for row in recent]))
    if loss < parameters.collapse_loss and change > 0:
        raise PipelineError(
            f"Training collapsed at step {int(recent[-1]['step'])} of {description}: the loss is {loss:.2g} because "
            f"losers are modelled badly, while winners are modelled worse than by the reference (by {change:.2g}). "
            f"Lower the learning rate ({parameters.learning_rate}), raise supervised_weight "
            f"({parameters.supervised_weight}), or set collapse_loss to 0 to go on regardless."
        )


class _Order:
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


def _accumulate(
    generator: Generator,
    chosen: Sequence[tuple[TrainingPair, int]],
    latents: Mapping[str, torch.Tensor],
    conditions: Mapping[str, Condition],
    parameters: PreferenceTrainingParameters,
    device: torch.device,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and statistics of a step's pairs; their gradients are added up, some pairs at a time."""
    import torch

    size = parameters.micro_batch_size or len(chosen)
    losses, parts = [], []
    for start in range(0, len(chosen), size):
        some = chosen[start : start + size]
        batch = _collate(generator, some, latents, conditions, parameters.seed, device)
        loss, statistics = _loss(generator, batch, parameters)
        loss = loss * (len(some) / len(chosen))
        loss.backward()
        losses.append(loss.detach())
        parts.append(statistics)
    return torch.stack(losses).sum(), {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


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
