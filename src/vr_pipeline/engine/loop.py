"""The training loop: steps, checkpoints, resuming, averages, schedules, groups of processes, validation, observers."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vr_pipeline.engine.config import CheckpointParameters, LoopParameters
from vr_pipeline.engine.groups import Group
from vr_pipeline.engine.health import check_finite, check_weights, log_row
from vr_pipeline.engine.optimisation import AveragedWeights, clip_gradients, learning_rate, make_optimizer
from vr_pipeline.engine.sharding import is_spread
from vr_pipeline.engine.state import BestWeights, LogRows, TrainingState, load_checkpoint, save_checkpoint
from vr_pipeline.engine.watch import Diagnosis, Watch
from vr_pipeline.errors import InputError, PipelineError
from vr_pipeline.runtime.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd
    import torch

logger = logging.getLogger(__name__)

Observe = Callable[[Mapping[str, float]], None]
"""Receives rows of the training log. A step may come twice: after a stop, or with more values."""


class Task:
    """A training task for the loop: a subclass defines at least the weights and the gradients of a step.

    Attributes:
        description: names the training in messages and beside the progress bar.
        identity: hash of everything that determines the training; checkpoints of others are not used.
        metric: column of the log for the result of :meth:`validate`.
        chooses: whether the weights with the highest metric are kept; otherwise it is only logged.
        validates_together: whether all processes of a group call :meth:`validate`, or only the main one.
        watch_every: steps between calls of :meth:`diagnose`; 0: never.
        on_trouble: when a training fails: ``keep`` ends it with weights from before the failure, the best validated
            ones if there are any; ``error`` ends it with an error; ``warn`` warns once.
        ends_on: column of :meth:`figures` that ends the training; empty for none.
        also_lower: settings besides the learning rate that may be too high if numbers overflow, for messages.
    """

    description = "train"
    identity = ""
    metric = "validation_reward"
    chooses = True
    validates_together = False
    watch_every = 0
    on_trouble = "keep"
    ends_on = ""
    also_lower = ""

    def __init__(self, settings: LoopParameters) -> None:
        self.settings = settings
        self._figures: Mapping[str, float] = {}

    def weights(self) -> Sequence[torch.Tensor]:
        """Prepare the model for training and return the trained parameters, in a fixed order."""
        raise NotImplementedError

    def optimizers(self, weights: Sequence[torch.Tensor]) -> Sequence[torch.optim.Optimizer]:
        """Return the optimisers of the weights; the learning rates of their groups are peak rates."""
        return [make_optimizer(weights, self.settings)]

    def step(self, step: int, group: Group) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Accumulate the gradients of this process's share of a step.

        Random draws must depend only on the number of the step, so that a resumed training repeats them.

        Returns:
            loss and statistics of the whole step, the same in all processes; statistics are numbers or [samples].
        """
        raise NotImplementedError

    def samples(self, step: int) -> Sequence[str]:
        """Name the samples of a step, in the order of its statistics, for messages."""
        return ()

    def diagnose(self, rows: LogRows) -> Diagnosis:
        """Diagnose the training's health from the log up to its last step."""
        return Diagnosis()

    def baseline(self) -> float | None:
        """Return the result of :meth:`validate` for the initial weights."""
        return None

    def validate(self, step: int, group: Group) -> float | None:
        """Judge the model's current weights: higher is better; None for no judgement."""
        return None

    def figures(self) -> Mapping[str, float]:
        """Return further results of the last :meth:`validate`, as columns of the log."""
        return self._figures


def best_checkpoint(log: pd.DataFrame, metric: str) -> dict[str, float]:
    """Return the step of the best checkpoint and its validation accuracy, for a summary.

    Args:
        log: one row per step; see :func:`train`.
        metric: column that selected the checkpoint; of equal values the first counts.
    """
    best = int(np.nanargmax(log[metric].to_numpy(dtype=np.float64)))
    return {"best_step": int(log["step"].iloc[best]), "validation_accuracy": float(log[metric].iloc[best])}


def train(
    task: Task,
    settings: LoopParameters,
    *,
    group: Group,
    checkpoint: Path | None = None,
    retrain: bool = False,
    observe: Observe | None = None,
) -> LogRows:
    """Train until the last step; then the model has the best validated weights, else the average or the last ones.

    Args:
        task: the training task.
        settings: steps, learning rate, average and checkpoints.
        group: the processes that train together.
        checkpoint: file of the state, written every ``checkpoint_every`` steps; the same training resumes from it. At
            the end it has the result, which the same training uses instead of training again;
            :func:`~vr_pipeline.engine.state.keep_newest` removes it. Several machines need it on a shared disk.
        retrain: train even if the result of the same training is stored.
        observe: called by the main process with every row, including those before a stop.

    Returns:
        the training log, one row per step; validated steps also have the task's metric. It ends early after
        ``patience`` validations without an improvement, or if the training fails: then its last row has
        ``trouble_step``, the first failed step, and ``kept_step``, whose weights are kept (0: the initial ones).

    Raises:
        InputError: the checkpoint is damaged or cannot be written, or processes see different ones.
        PipelineError: loss, gradients, weights or metric are not finite, or the training fails and the task's
            ``on_trouble`` is ``error``.
    """
    loop = _Loop(task, settings, group, checkpoint, observe)
    loop.resume(retrain)
    if not loop.state.finished:
        loop.run()
    return loop.state.rows


def train_stored(task: Task, *, group: Group, observe: Observe | None = None) -> pd.DataFrame:
    """Train by :func:`train` with the task's settings, which name the folder of checkpoints; return the log."""
    import pandas as pd

    settings = task.settings
    assert isinstance(settings, CheckpointParameters)
    place, again = settings.checkpoint_file(task.identity), settings.retrain
    return pd.DataFrame(train(task, settings, group=group, checkpoint=place, retrain=again, observe=observe))


class _Loop:
    """One training from its state to its end."""

    def __init__(
        self,
        task: Task,
        settings: LoopParameters,
        group: Group,
        checkpoint: Path | None,
        observe: Observe | None,
    ) -> None:
        self.task, self.settings, self.group = task, settings, group
        self.checkpoint, self.observe = checkpoint, observe
        self.warned = False
        weights = list(task.weights())
        optimizers = list(task.optimizers(weights))
        average = AveragedWeights(weights, settings.ema_decay) if settings.ema_decay is not None else None
        self.state = TrainingState(weights, optimizers, average)
        self.averaged = average.in_use if average is not None else contextlib.nullcontext
        self.watch = Watch(self.state, task.watch_every, self.averaged) if task.watch_every else None
        groups = [one for optimizer in optimizers for one in optimizer.param_groups]
        self.rates = [(one, one["lr"] / settings.learning_rate) for one in groups]
        self.judged_by_all = task.validates_together or any(is_spread(weight) for weight in weights)
        self.remedy = f"Lower the learning rate ({settings.learning_rate}){task.also_lower}, or train in float32"

    def resume(self, retrain: bool) -> None:
        """Load the state of the checkpoint, if there is one of this training."""
        if self.checkpoint is None:
            return
        state = self.state
        load_checkpoint(self.checkpoint, state, identity=self.task.identity, retrain=retrain)
        if self.group.from_main(state.step) != state.step:
            raise InputError(
                "the processes of this training see different checkpoints",
                file=self.checkpoint,
                remedy="put the folder of checkpoints on a disk that all machines share",
            )
        if not state.step:
            return
        if state.finished:
            self._log("was finished before; its stored result is used (--retrain trains again)")
        else:
            self._log("resumes after step %d of %d", state.step, self.settings.steps)
        self._show(*state.rows)
        # It may have been stopped while this checkpoint was validated.
        if not state.finished and self.task.metric not in state.rows[-1]:
            self._validate()

    def run(self) -> None:
        """Make the remaining steps, and choose the weights."""
        task, state, steps = self.task, self.state, self.settings.steps
        bar = progress_bar(
            range(state.step + 1, steps + 1),
            initial=state.step,
            total=steps,
            description=task.description,
            unit="step",
            disable=not self.group.main,
        )
        for step in bar:
            if self._stalled():
                break
            row = self._step(step)
            self._show(row)
            if self._troubled():
                break
            self._keep()
            shown = {name: f"{row[name]:.3f}" for name in ("loss", task.metric) if name in row}
            bar.set_postfix(refresh=False, **shown)
        self._choose_weights()
        state.finished = True
        self._save()

    def _step(self, step: int) -> dict[str, float]:
        task, state, settings = self.task, self.state, self.settings
        loss, statistics = task.step(step, self.group)
        self.group.sum_gradients(state.weights)
        self._check("loss", {"loss": loss, **statistics}, step)
        norm = clip_gradients(state.weights, settings.max_gradient_norm)
        self._check("gradient", {"gradient": norm}, step)
        rate = learning_rate(step, settings)
        for group, scale in self.rates:
            group["lr"] = rate * scale
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if state.average is not None:
            state.average.update(step)
        row = log_row(step, loss, statistics, norm, rate)
        state.step = step
        state.rows.append(row)
        return row

    def _check(self, what: str, values: Mapping[str, torch.Tensor], step: int) -> None:
        task = self.task
        check_finite(what, values, step, samples=task.samples, description=task.description, remedy=self.remedy)

    def _keep(self) -> None:
        """Save and validate the weights, if they are due."""
        step, every, last = self.state.step, self.settings.checkpoint_every, self.settings.steps
        due = every > 0 and step % every == 0
        if due or step == last:
            check_weights(self.state.weights, step, description=self.task.description, remedy=self.remedy)
        if due:
            self._save()
        if (due or step == last) and self._validate() and due:
            self._save()

    def _validate(self) -> bool:
        """Validate the weights; return whether there is a result."""
        state = self.state
        with self.averaged():
            value = self._ask(state.step)
            if value is not None and self.task.chooses:
                state.best = state.best.improved(state.step, value, state.weights)
        return value is not None

    def _ask(self, step: int) -> float | None:
        """Validate the model's current weights, those of a step; return the result and add it to the step's row."""
        task, rows = self.task, self.state.rows
        value = task.validate(step, self.group) if self.group.main or self.judged_by_all else None
        value, figures = self.group.from_main((value, dict(task.figures())))
        if value is None:
            return None
        if not math.isfinite(value):
            raise PipelineError(
                f"The {task.metric.replace('_', ' ')} of step {step} of {task.description} is {value}, so checkpoints "
                "cannot be compared. Inspect the outputs of model and judge for the validated samples; the training "
                "resumes from this checkpoint."
            )
        rows[step - 1] |= {task.metric: float(value)} | figures
        self._show(rows[step - 1])
        return float(value)

    def _troubled(self) -> bool:
        """Return whether the training has failed and ends; then choose the weights to keep."""
        watch, state, task = self.watch, self.state, self.task
        if watch is None or not watch.due():
            return False
        diagnosis = task.diagnose(state.rows)
        if diagnosis.trouble is None:
            watch.advance(diagnosis.healthy)
            return False
        began = state.healthy_until + 1
        told = f"{task.description} failed from step {began} on: {diagnosis.trouble}"
        if task.on_trouble == "error":
            raise PipelineError(f"{told}, detected after step {state.step}. {diagnosis.remedy}.")
        if task.on_trouble == "warn":
            if not self.warned and self.group.main:
                logger.warning("%s, detected after step %d. %s", told, state.step, diagnosis.remedy)
            self.warned = True
            return False
        state.best = self._unharmed(watch)
        state.rows[-1] |= {"trouble_step": float(began), "kept_step": float(state.best.step)}
        self._show(state.rows[-1])
        if self.group.main:
            kept = f"The weights of step {state.best.step} are kept" if state.best.step else "The original is kept"
            logger.warning("%s. Stopped after step %d. %s. %s", told, state.step, kept, diagnosis.remedy)
        return True

    def _unharmed(self, watch: Watch) -> BestWeights:
        """Return the weights to keep of a failed training, never ones judged worse than the initial weights.

        If checkpoints are judged, these are the best of the judged weights, the healthy ones and the original;
        otherwise the last healthy ones.
        """
        state = self.state
        chosen = state.healthy
        chosen.restore(state.weights)
        value = self._ask(chosen.step) if chosen.step else None
        if not self.task.chooses:
            return chosen
        if value is not None:
            chosen = replace(chosen, value=value)
        if state.best.weights and (state.best.value, -state.best.step) > (chosen.value, -chosen.step):
            chosen = state.best
        baseline = self.group.from_main(self.task.baseline())
        return watch.original if baseline is not None and baseline >= chosen.value else chosen

    def _stalled(self) -> bool:
        """Return whether the last ``patience`` validations in the log brought no improvement."""
        patience, rows, metric = self.settings.patience, self.state.rows, self.task.metric
        if rows and self.task.ends_on in rows[-1]:
            self._log("stops after step %d: %s", self.state.step, self.task.ends_on.replace("_", " "))
            return True
        if patience is None or not rows or metric not in rows[-1]:
            return False
        values = [row[metric] for row in rows if metric in row]
        if len(values) <= patience or max(values[-patience:]) > max(values[:-patience]):
            return False
        self._log("stops after step %d: %d validations without an improvement", self.state.step, patience)
        return True

    def _choose_weights(self) -> None:
        state = self.state
        if "kept_step" in state.rows[-1]:
            state.best.restore(state.weights)
        elif state.best.step:
            state.best.restore(state.weights)
            metric = self.task.metric.replace("_", " ")
            self._log("the weights of step %d are kept, with a %s of %.4f", state.best.step, metric, state.best.value)
        elif state.average is not None:
            state.average.exchange()

    def _save(self) -> None:
        if self.checkpoint is not None:
            save_checkpoint(self.checkpoint, self.state, identity=self.task.identity, main=self.group.main)

    def _log(self, message: str, *values: object) -> None:
        if self.group.main:
            logger.info(f"%s: {message}", self.task.description, *values)

    def _show(self, *rows: Mapping[str, float]) -> None:
        if self.observe is not None and self.group.main:
            for row in rows:
                self.observe(row)
