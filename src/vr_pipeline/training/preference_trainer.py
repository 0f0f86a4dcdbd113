"""Training a generator on pairs of clips, in one process or several."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vr_pipeline.engine.determinism import deterministic
from vr_pipeline.engine.groups import Group, training_group
from vr_pipeline.engine.optimisation import AveragedWeights, clip_gradients, learning_rate_factor, make_optimizer
from vr_pipeline.engine.sharding import blocks_of, shard_weights
from vr_pipeline.engine.state import TrainingState, load_checkpoint, save_checkpoint
from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.generators.contract import Condition, Generator
from vr_pipeline.identifiers import code_hash, content_hash, sample_seed
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.training.config import PreferenceTrainingParameters
from vr_pipeline.training.health import check_collapse, check_finite, check_weights, log_row, warn_of_both_errors
from vr_pipeline.training.pairs import PairOrder, TrainingPair, check_complete, prepare_pairs
from vr_pipeline.training.step import accumulate_gradients

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Validate = Callable[[int], float | None]
"""Judges the weights the generator holds, given the step: a reward, higher is better, or None for no judgement.

The generator's autoencoder and text encoder are not loaded while it trains; ``with generator.encoders():`` has them
for the length of a block. Weights must be left as they are. The main process alone judges; where weights are spread
over the group all processes do the same together, and what the main one says counts.
"""

_COMPUTING = (
    "vr_pipeline.engine.optimisation",
    *(f"vr_pipeline.training.{name}" for name in ("losses", "pairs", "step")),
)
"""Modules that decide what a step computes, beside those of the generator."""

Observe = Callable[[Mapping[str, float]], None]
"""Takes rows of the training log as they come. Steps may come twice: after a stop, or with more values."""


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
    judged_by: str = "",
    contents: str = "",
    retrain: bool = False,
    observe: Observe | None = None,
) -> pd.DataFrame:
    """Train the generator on the pairs.

    Winner and loser go through the network in one batch with the same noise and timestep. Both derive from the seed,
    the pair's identifier and the epoch, so that they do not depend on batch size, order or number of processes.

    Args:
        generator: receives the trained adapter or weights.
        pairs: at least one.
        latents: latents of clips by key, each [...].
        conditions: text conditions by prompt identifier, every tensor [1, ...].
        parameters: settings.
        description: label of the progress bar.
        checkpoint: file that takes the state every ``checkpoint_every`` steps; a training that finds its own state
            there goes on from it. At the end it holds the result, which the same training takes up instead of being
            done again; :func:`~vr_pipeline.engine.state.keep_newest` removes it. Processes on several machines
            need it on a shared disk.
        validate: called after every ``checkpoint_every`` steps and after the last, when the generator holds the
            weights to judge; the generator is left with the weights that got the highest reward, the first of equals.
        judged_by: identity of what ``validate`` judges by and when. A training that was judged otherwise is another:
            its rewards cannot be compared.
        contents: hash of what the keys of clips and prompts stand for; part of the training's identity.
        retrain: train although the result of this very training is there.
        observe: called by the main process with every row, those of before a stop included.

    Returns:
        the training log, one row a step: loss, implicit accuracy, errors against the reference, quantiles of the term
        inside the sigmoid, saturation, gradient norm, learning rate; with ``validate`` also ``validation_reward``, NaN
        where there was none.

    Raises:
        InputError: if there are no pairs, a pair's latents or text condition are missing, or settings do not suit the
            generator or the number of processes.
        PipelineError: if the loss is not finite, or the training collapses.
    """
    check_complete(pairs, latents, conditions)
    device = next(generator.denoiser.parameters()).device
    on_cpu = device.type == "cpu"
    with training_group(device) as group, deterministic(parameters.threads) if on_cpu else contextlib.nullcontext():
        _check_settings(generator, parameters, group)
        weights = prepare_weights(generator, parameters, group)
        training = _Training(
            generator=generator,
            pairs=prepare_pairs(pairs, parameters),
            latents=latents,
            conditions=conditions,
            parameters=parameters,
            device=device,
            group=group,
            state=TrainingState(
                weights,
                make_optimizer(weights, parameters),
                AveragedWeights(weights, parameters.ema_decay) if parameters.ema_decay is not None else None,
            ),
            identity=training_identity(generator, pairs, parameters, judged_by, contents),
            retrain=retrain,
            description=description,
            checkpoint=checkpoint,
            validate=validate,
            observe=observe,
        )
        training.run()
    return pd.DataFrame(training.state.rows)


def training_identity(
    generator: Generator,
    pairs: Sequence[TrainingPair],
    parameters: PreferenceTrainingParameters,
    judged_by: str = "",
    contents: str = "",
) -> str:
    """Hash of what determines a training: code, generator, pairs in any order, settings, judging, clips, prompts."""
    rewards = {pair.winner: pair.winner_reward for pair in pairs} | {pair.loser: pair.loser_reward for pair in pairs}
    return content_hash(
        "training",
        generator.identity,
        parameters.model_dump_json(exclude={"checkpoint_every"}),
        *sorted(f"{pair.pair_id} {pair.prompt_id} {pair.winner} {pair.loser}" for pair in pairs),
        *(f"{name} {reward!r}" for name, reward in sorted(rewards.items()) if parameters.uses_rewards),
        judged_by,
        contents,
        # A result is taken up long after it was made: not by a program that would make another.
        code_hash(
            *_COMPUTING,
            *(kind.__module__ for kind in type(generator).__mro__ if kind.__module__.startswith("vr_pipeline.")),
        ),
    )


def _check_settings(generator: Generator, parameters: PreferenceTrainingParameters, group: Group) -> None:
    if parameters.batch_size % group.size:
        raise InputError(
            f"{parameters.batch_size} pairs a step cannot be shared evenly by {group.size} processes",
            field="training.batch_size",
            remedy="choose a multiple of the number of processes",
        )
    if generator.parameters.dtype == "float16":
        raise InputError(
            "gradients vanish or overflow in float16",
            field="generator.dtype",
            remedy="train in bfloat16 or float32",
        )


def prepare_weights(generator: Generator, parameters: PreferenceTrainingParameters, group: Group) -> list[Any]:
    """Make the generator ready to be trained, and say which of its parameters are: in a fixed order, float32."""
    if parameters.method == "lora":
        weights = generator.add_adapter(
            rank=parameters.adapter.rank,
            alpha=parameters.adapter.alpha,
            targets=parameters.adapter.targets,
            seed=sample_seed(parameters.seed, "adapter", 0),
        )
    else:
        weights = generator.train_all_weights(reference=parameters.uses_reference)
    denoiser = generator.denoiser
    if parameters.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    # Dropout, where a configuration has any, would give policy and reference different networks.
    denoiser.eval()
    if parameters.compile != "none":
        for network in generator.networks():
            for module in blocks_of(network) if parameters.compile == "blocks" else [network]:
                module.compile()
    # A single process has nobody to share with.
    return shard_weights(generator) if parameters.sharding == "fsdp2" and group.size > 1 else weights


@dataclass
class _Training:
    """One training from its state to its end."""

    generator: Generator
    pairs: Sequence[TrainingPair]
    latents: Mapping[str, torch.Tensor]
    conditions: Mapping[str, Condition]
    parameters: PreferenceTrainingParameters
    device: torch.device
    group: Group
    state: TrainingState
    identity: str
    retrain: bool
    description: str
    checkpoint: Path | None
    validate: Validate | None
    observe: Observe | None

    @property
    def _sharded(self) -> bool:
        return self.parameters.sharding != "none" and self.group.size > 1

    def run(self) -> None:
        self._resume()
        if not self.state.finished:
            self._train()
            self._choose_weights()
            if self.group.main:
                warn_of_both_errors(self.state.rows, self.description)
            self.state.finished = True
            self._save()
        if self._sharded:
            # Slices can be brought together only as long as the group exists.
            self.generator.load_policy(self.generator.policy())

    def _train(self) -> None:
        order = PairOrder(self.pairs, self.parameters.seed)
        bar = progress_bar(
            range(self.state.step + 1, self.parameters.steps + 1),
            initial=self.state.step,
            total=self.parameters.steps,
            description=self.description,
            unit="step",
            disable=not self.group.main,
        )
        for step in bar:
            row = self._step(step, order)
            self._show(row)
            check_collapse(self.state.rows, self.parameters, self.description)
            bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
            self._keep()

    def _tell(self, message: str, *values: object) -> None:
        if self.group.main:
            logger.info(f"%s: {message}", self.description, *values)

    def _show(self, *rows: Mapping[str, float]) -> None:
        if self.observe is not None and self.group.main:
            for row in rows:
                self.observe(row)

    def _resume(self) -> None:
        if self.checkpoint is None:
            return
        state = self.state
        load_checkpoint(self.checkpoint, state, identity=self.identity, retrain=self.retrain)
        if self.group.from_main(state.step) != state.step:
            raise InputError(
                "the processes of this training see different checkpoints",
                file=self.checkpoint,
                remedy="put the folder of checkpoints on a disk that all machines share",
            )
        if state.step:
            if state.finished:
                self._tell("was finished before and is not done again: its result is taken up (--retrain trains anew)")
            else:
                self._tell("goes on after step %d of %d", state.step, self.parameters.steps)
            self._show(*state.rows)
            # It may have been stopped while this checkpoint was judged.
            if not state.finished and "validation_reward" not in state.rows[-1]:
                self._judge()

    def _step(self, step: int, order: PairOrder) -> dict[str, float]:
        parameters, group, state = self.parameters, self.group, self.state
        first = (step - 1) * parameters.batch_size
        chosen = [order[position] for position in range(first, first + parameters.batch_size)]
        state.optimizer.zero_grad(set_to_none=True)
        loss, statistics = accumulate_gradients(
            self.generator,
            group.share(chosen),
            self.latents,
            self.conditions,
            parameters,
            self.device,
            of=len(chosen),
            # Sharded gradients are averaged over the processes, while each one's loss is its part of the whole.
            scale=float(group.size) if self._sharded else 1.0,
        )
        if not self._sharded:
            group.sum_gradients(state.weights)
        loss = group.gather({"loss": loss.view(1)})["loss"].sum()
        statistics = group.gather(statistics)
        pairs = [pair.pair_id for pair, _ in chosen]
        check_finite("loss", {"loss": loss, **statistics}, pairs, step, parameters, self.description)
        norm = clip_gradients(state.weights, parameters.max_gradient_norm)
        check_finite("gradient", {"gradient": norm}, pairs, step, parameters, self.description)
        rate = parameters.learning_rate * learning_rate_factor(
            step, warmup_steps=min(parameters.warmup_steps, parameters.steps), steps=parameters.steps
        )
        for settings in state.optimizer.param_groups:
            settings["lr"] = rate
        state.optimizer.step()
        if state.average is not None:
            state.average.update(step)
        row = log_row(step, loss, statistics, norm, rate)
        state.step = step
        state.rows.append(row)
        return row

    def _keep(self) -> None:
        """Save and judge the weights, if it is time."""
        step = self.state.step
        due = self.parameters.checkpoint_every > 0 and step % self.parameters.checkpoint_every == 0
        if due or step == self.parameters.steps:
            check_weights(self.state.weights, step, self.parameters, self.description)
        if due:
            self._save()
        if due or step == self.parameters.steps:
            judged = self._judge()
            if due and judged:
                self._save()

    def _save(self) -> None:
        if self.checkpoint is not None:
            save_checkpoint(self.checkpoint, self.state, identity=self.identity, main=self.group.main)

    def _judge(self) -> bool:
        """Ask for the reward of the weights; whether there was one."""
        if self.validate is None:
            return False
        state = self.state
        with state.average.in_use() if state.average is not None else contextlib.nullcontext():
            reward = self.validate(state.step) if self.group.main or self._sharded else None
            reward = self.group.from_main(reward)
            if reward is None:
                return False
            if not math.isfinite(reward):
                raise PipelineError(
                    f"The validation reward of step {state.step} of {self.description} is {reward}, and checkpoints "
                    "cannot be compared by it. See what the judge and the weights of the reward give for these clips; "
                    "the training resumes from this checkpoint."
                )
            state.rows[-1]["validation_reward"] = float(reward)
            self._show(state.rows[-1])
            state.best = state.best.improved(state.step, float(reward), state.weights)
        return True

    def _choose_weights(self) -> None:
        """Leave the generator with the weights that were judged best, else with the average or the last."""
        if self.state.best.step:
            self.state.best.restore(self.state.weights)
            best = self.state.best
            self._tell("the policy is that of step %d, with a validation reward of %.4f", best.step, best.reward)
        elif self.state.average is not None:
            self.state.average.exchange()
