"""Train a generator on pairs of clips, in one process or several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from vr_pipeline.engine.determinism import deterministic
from vr_pipeline.engine.groups import Group, training_group
from vr_pipeline.engine.loop import Observe, Task, train
from vr_pipeline.engine.optimisation import make_optimizer
from vr_pipeline.engine.order import EpochOrder
from vr_pipeline.engine.sharding import blocks_of, shard_weights
from vr_pipeline.engine.state import LogRows
from vr_pipeline.engine.watch import Diagnosis
from vr_pipeline.errors import InputError
from vr_pipeline.generators.contract import Generator
from vr_pipeline.identifiers import code_hash, content_hash, sample_seed
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.health import diagnose, warn_of_both_errors
from vr_pipeline.training.pairs import PairData, TrainingPair, prepare_pairs
from vr_pipeline.training.references import ReferenceErrors
from vr_pipeline.training.step import accumulate_gradients

if TYPE_CHECKING:
    import torch


class Validation(NamedTuple):
    """Judging of checkpoints.

    Attributes:
        validate: given the step, judges the generator's current weights: a reward, higher is better, or None for no
            judgement. Autoencoder and text encoder are not loaded during training; ``with generator.encoders():`` loads
            them for a block. It must not change the weights. If weights are sharded, all processes call it, and the
            main one's result counts.
        identity: hash of the reward and of the judged steps; part of the training's identity.
        metric: column of the log for the judgement.
        chooses: whether the weights with the highest judgement are kept, or those of the last step.
        baseline: judgement of the original; None if it was not judged.
        together: whether all processes call ``validate``, sharing its work, or only the main one.
        figures: further columns of the log, of the last judgement.
        ends_on: column among these that ends the training; empty for none.
    """

    validate: Callable[[int], float | None]
    identity: str = ""
    metric: str = "validation_reward"
    chooses: bool = True
    baseline: Callable[[], float | None] = lambda: None
    together: bool = False
    figures: Callable[[], Mapping[str, float]] = dict
    ends_on: str = ""


_COMPUTING = (
    "vr_pipeline.generators.residuals",
    *(f"vr_pipeline.engine.{name}" for name in ("loop", "optimisation", "schedules", "watch")),
    *(
        f"vr_pipeline.training.{name}"
        for name in (
            *("clip_losses", "health", "losses", "objectives", "pairs"),
            *("references", "safeguards", "segment_losses", "step"),
        )
    ),
)
"""Modules that determine the result of a step, besides those of the generator."""


def train_on_pairs(
    generator: Generator,
    data: PairData,
    parameters: PreferenceTrainingParameters,
    *,
    description: str = "train",
    checkpoint: Path | None = None,
    validation: Validation | None = None,
    retrain: bool = False,
    observe: Observe | None = None,
) -> pd.DataFrame:
    """Train the generator on the pairs.

    Winner and loser are in one batch with the same noise and timestep. Both depend only on the seed, the pair's
    identifier and the epoch, not on batch size, order or number of processes.

    Args:
        generator: receives the trained adapter or weights.
        data: pairs, latents and text conditions.
        parameters: settings.
        description: label of the progress bar.
        checkpoint, retrain, observe: as for :func:`vr_pipeline.engine.loop.train`.
        validation: called after every ``checkpoint_every`` steps and after the last; at the end the generator has the
            weights with the highest reward, the first of equals.

    Returns:
        the training log, one row per step: loss, implicit accuracy, errors minus the reference's, quantiles of the term
        inside the sigmoid, saturation, gradient norm, learning rate; with ``validation`` also ``validation_reward``,
        NaN for other steps.

    Raises:
        InputError: there are no pairs, a pair's latents or text condition are missing, or settings do not suit the
            generator or the number of processes.
        PipelineError: the loss is not finite, or the training fails and ``on_trouble`` is ``error``.
    """
    data.check_complete()
    device = next(generator.denoiser.parameters()).device
    on_cpu = device.type == "cpu"
    with training_group(device) as group, deterministic(parameters.threads) if on_cpu else contextlib.nullcontext():
        parameters.check_generator(generator.parameters.dtype, group.size)
        task = PreferenceTask(generator, data, parameters, group, validation)
        task.description = description
        if parameters.reference_draws is not None:
            folder = checkpoint.parent / "reference_errors" if checkpoint is not None else None
            task.references = ReferenceErrors(generator, task.data, parameters, folder)
        rows = train(task, parameters, group=group, checkpoint=checkpoint, retrain=retrain, observe=observe)
        if task.references is not None and group.main:
            task.references.save()
        if group.main:
            warn_of_both_errors(rows, description)
        if task.sharded:
            # Shards can be gathered only while the group exists.
            generator.load_policy(generator.policy())
    return pd.DataFrame(rows)


def training_identity(
    generator: Generator, data: PairData, parameters: PreferenceTrainingParameters, judged_by: str = ""
) -> str:
    """Hash what determines a training: code, generator, pairs in any order, settings, judging, clips, prompts."""
    pairs, of_segments = sorted(data.pairs, key=lambda pair: pair.pair_id), parameters.objective.of_segments
    rewards = {
        clip: reward
        for pair in pairs
        for clip, reward in zip(pair.clips, (pair.winner_reward, pair.loser_reward), strict=False)
    }
    return content_hash(
        "training",
        generator.identity,
        parameters.model_dump_json(exclude={"checkpoint_every"}),
        *sorted(f"{pair.pair_id} {pair.prompt_id} {pair.winner} {pair.loser}" for pair in pairs),
        *(f"{name} {reward!r}" for name, reward in sorted(rewards.items()) if parameters.uses_rewards),
        *(f"{pair.pair_id} {pair.seeds}" for pair in pairs if parameters.noise == "prior"),
        *(f"{pair.pair_id} {pair.segments}" for pair in pairs if of_segments),
        judged_by,
        data.contents,
        *([generator.start.identity] if generator.start else []),
        # A stored result must not be used by code that would compute another.
        code_hash(
            *_COMPUTING,
            *(kind.__module__ for kind in type(generator).__mro__ if kind.__module__.startswith("vr_pipeline.")),
        ),
    )


def prepare_weights(generator: Generator, parameters: PreferenceTrainingParameters, group: Group) -> list[Any]:
    """Prepare the generator for training; return the trained parameters in a fixed order, float32."""
    if parameters.method == "lora":
        weights = generator.add_adapter(
            rank=parameters.lora.rank,
            alpha=parameters.lora.alpha,
            targets=parameters.lora.target_modules,
            seed=sample_seed(parameters.seed, "adapter", 0),
        )
    elif generator.start is not None:
        raise InputError(
            "a training of all weights cannot start with another policy",
            field="training.method",
            remedy="set it to lora",
        )
    else:
        weights = generator.train_all_weights(reference=parameters.uses_reference)
    denoiser = generator.denoiser
    if parameters.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    # Dropout would make policy and reference differ.
    denoiser.eval()
    networks = generator.networks()
    if parameters.compile != "none":
        for network in networks:
            for module in blocks_of(network) if parameters.compile == "blocks" else [network]:
                module.compile()
    if parameters.sharding == "none" or group.size == 1:
        return weights
    frozen = [network for network in networks if network is not denoiser]
    return shard_weights(denoiser, frozen, generator.parameters.dtype)


class PreferenceTask(Task):
    """Training on pairs relative to the frozen original."""

    def __init__(
        self,
        generator: Generator,
        data: PairData,
        parameters: PreferenceTrainingParameters,
        group: Group,
        validation: Validation | None,
    ) -> None:
        super().__init__(parameters)
        self.generator, self.parameters, self.group = generator, parameters, group
        self.validation = validation
        if validation is not None:
            self.metric, self.chooses = validation.metric, validation.chooses
            self.validates_together, self.ends_on = validation.together, validation.ends_on
        self.identity = training_identity(generator, data, parameters, validation.identity if validation else "")
        pairs = prepare_pairs(data.pairs, parameters)
        self.data = PairData(pairs, data.latents, data.conditions)
        self.order = EpochOrder(pairs, [pair.pair_id for pair in pairs], parameters.seed)
        self.references: ReferenceErrors | None = None
        self.also_lower = f" or beta ({parameters.beta})"
        self.watch_every, self.on_trouble = parameters.safeguard.window, parameters.safeguard.on_trouble
        self.sharded = parameters.sharding != "none" and group.size > 1

    def weights(self) -> list[Any]:
        return prepare_weights(self.generator, self.parameters, self.group)

    def optimizers(self, weights: Sequence[torch.Tensor]) -> list[torch.optim.Optimizer]:
        return [make_optimizer(weights, self.parameters, eight_bit=self.parameters.optimizer == "adamw_8bit")]

    def _chosen(self, step: int) -> list[tuple[TrainingPair, int]]:
        return self.order.of_step(step, self.parameters.batch_size)

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        chosen = self._chosen(step)
        loss, statistics = accumulate_gradients(
            self.generator,
            group.share(chosen),
            self.data,
            self.parameters,
            pairs_of_step=len(chosen),
            # Sharded gradients are averaged over processes, but each process computes its part of the loss.
            scale=float(group.size) if self.sharded else 1.0,
            references=self.references.of if self.references is not None else None,
        )
        gathered = group.gather(statistics)
        side = "" if self.parameters.objective.of_clips else "winner_"
        if f"{side}reference_error" in gathered:
            # By the mean over the step, because single errors vary with the noise.
            share = gathered[f"{side}change"] / gathered[f"{side}reference_error"].mean()
            gathered[f"{side}change_share"] = share
        return group.gather({"loss": loss.view(1)})["loss"].sum(), gathered

    def samples(self, step: int) -> list[str]:
        return [
            f"the pair '{pair.pair_id}'" if pair.loser else f"the clip '{pair.winner}'"
            for pair, _ in self._chosen(step)
        ]

    def diagnose(self, rows: LogRows) -> Diagnosis:
        return diagnose(rows, self.parameters)

    def baseline(self) -> float | None:
        return self.validation.baseline() if self.validation is not None else None

    def validate(self, step: int, group: Group) -> float | None:
        return self.validation.validate(step) if self.validation is not None else None

    def figures(self) -> Mapping[str, float]:
        return self.validation.figures() if self.validation is not None else {}
