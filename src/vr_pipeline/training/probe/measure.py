"""Short trainings of a probe, each stored in a separate file: gain and health."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError, PipelineError, storage_explained
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator, Part
from vr_pipeline.identifiers import content_hash, sample_seed
from vr_pipeline.storage.atomic import write_text
from vr_pipeline.training.config import DpoTrainingParameters, PreferenceTrainingParameters
from vr_pipeline.training.pairs import PairData, TrainingPair
from vr_pipeline.training.preference_trainer import train_on_pairs, training_identity
from vr_pipeline.training.probe.grid import Costs, Grid
from vr_pipeline.training.step import collate, pair_loss
from vr_pipeline.training.validation import CheckpointValidation

HELD_OUT_SHARE = 0.2
"""Share of the prompts whose pairs are held out."""

MOST_HELD_OUT = 64
"""Maximum number of held-out pairs, each measured with one noise and timestep."""

_STEPS_TIMED = 3


@dataclass(frozen=True)
class Cell:
    """The result of a short training; missing figures are None.

    Attributes:
        gain: mean validation reward minus the original's; None without a reward.
        gain_low, gain_high: its 95 % interval by prompt; None without one.
        accuracy: share of held-out pairs whose winner the policy prefers more than the original does.
        winner_rise: winners' error on held-out pairs minus the original's, relative to the latter.
        norm_ratio: norm of predictions on held-out pairs relative to the original's.
        loss: mean over the last quarter of the steps.
        stopped: why the training ended early; empty if it did not.
    """

    learning_rate: float
    beta: float
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    accuracy: float | None = None
    winner_rise: float | None = None
    norm_ratio: float | None = None
    loss: float | None = None
    stopped: str = ""


class Probe:
    """Trains on a share of the pairs, measures on the others, and stores the results.

    Args:
        data: pairs, latents and text conditions of a recipe.
        generator: the generator to train.
        parameters: the recipe's training.
        folder: of the results.
        validation: returns the judge of a training, given its parameters; None without a reward.
    """

    def __init__(
        self,
        data: PairData,
        generator: GeneratorParameters,
        parameters: DpoTrainingParameters,
        folder: Path,
        validation: Callable[[DpoTrainingParameters], CheckpointValidation] | None = None,
    ) -> None:
        self.parameters, self.folder, self._validation = parameters, folder, validation
        kept, self._held_out = split_by_prompt(data.pairs, parameters.training.seed)
        self._data = replace(data, pairs=kept)
        self._all = data
        trained: tuple[Part, ...] = ("denoiser",)
        self._generator: Generator = load_generator(parameters.trained(generator), trained)

    def identity(self, training: PreferenceTrainingParameters) -> str:
        """Hash everything that determines a short training with these settings."""
        held_out = sorted(pair.pair_id for pair in self._held_out)
        judged_by = self._judge(training).identity if self._validation is not None else ""
        return content_hash("probe", training_identity(self._generator, self._data, training, judged_by), *held_out)

    def costs(self) -> Costs:
        """Measure the durations of a step and a judgement on a few steps with the configured settings."""
        training = self._short(self.parameters.training.learning_rate, self.parameters.training.beta, _STEPS_TIMED)
        times: list[float] = []
        train_on_pairs(
            self._generator,
            self._data,
            training,
            description="time of a step",
            observe=lambda row: times.append(time.perf_counter()),
        )
        # The first step also loads; it is not counted.
        step = float(np.median(np.diff(times)))
        started = time.perf_counter()
        self._measure(training)
        if self._validation is not None:
            # The original's clips are made once; the clips of each combination take the same time.
            self._generator.load_policy(None)
            self._judge(training).judging(self._generator)
        return Costs(step, time.perf_counter() - started)

    def run(self, rate: float, beta: float, steps: int) -> Cell:
        """Train and measure one combination, or return its stored result."""
        training = self._short(rate, beta, steps)
        place = self.folder / "cells" / f"{self.identity(training)}.json"
        if place.is_file():
            return Cell(**json.loads(place.read_text(encoding="utf-8")))
        cell = self._run(training)
        with storage_explained(place, "earlier results are kept"):
            write_text(place, json.dumps(asdict(cell), indent=1, sort_keys=True) + "\n")
        return cell

    def _run(self, training: PreferenceTrainingParameters) -> Cell:
        cell = Cell(training.learning_rate, training.beta)
        self._generator.load_policy(None)
        judge = self._judge(training) if self._validation is not None else None
        validation = judge.judging(self._generator) if judge is not None else None
        rows: list[Mapping[str, float]] = []
        description = f"learning rate {training.learning_rate:g}, beta {training.beta:g}"
        try:
            log = train_on_pairs(
                self._generator,
                self._data,
                training,
                description=description,
                validation=validation,
                observe=rows.append,
            )
        except InputError:
            raise
        except PipelineError as error:
            return replace(cell, stopped=str(error), **_last(rows))
        finally:
            if judge is not None:
                judge.close()
        gain = _gain(judge.table(log)) if judge is not None else {}
        last = log["loss"].tail(max(1, len(log) // 4)).mean()
        return replace(cell, **gain, **self._measure(training), loss=_number(last), stopped=_stopped(log))

    def _measure(self, training: PreferenceTrainingParameters) -> dict[str, Any]:
        """Measure accuracy and health of the generator's current weights on held-out pairs with fixed noise."""
        import torch

        size = training.micro_batch_size or training.batch_size
        parts: dict[str, list[Any]] = {}
        with torch.no_grad():
            for start in range(0, len(self._held_out), size):
                # Epochs of a training are 0 or more, so it never uses this draw.
                chosen = [(pair, -1) for pair in self._held_out[start : start + size]]
                batch = collate(self._generator, chosen, self._all, training)
                _, statistics = pair_loss(self._generator, batch, training)
                for name, values in statistics.items():
                    parts.setdefault(name, []).append(values.float().cpu())
        found = {name: torch.cat(values).numpy().astype(np.float64) for name, values in parts.items()}
        if "winner_change" not in found:
            return {}
        margin = found["loser_change"] - found["winner_change"]
        ratios = np.concatenate([found["winner_norm_ratio"], found["loser_norm_ratio"]])
        return {
            "accuracy": _number((margin > 0).mean()),
            "winner_rise": _number(found["winner_change"].mean() / found["winner_reference_error"].mean()),
            "norm_ratio": _number(ratios.mean()),
        }

    def _short(self, rate: float, beta: float, steps: int) -> PreferenceTrainingParameters:
        """Return settings like those of the beginning of a long training, at full learning rate after the warm-up."""
        training = self.parameters.training
        changes = {
            "learning_rate": rate,
            "beta": beta,
            "steps": steps,
            "schedule": "constant",
            "warmup_steps": min(training.warmup_steps, max(1, steps // 5)),
            "checkpoint_every": 0,
        }
        return PreferenceTrainingParameters.model_validate(training.model_dump() | changes)

    def _judge(self, training: PreferenceTrainingParameters) -> CheckpointValidation:
        assert self._validation is not None
        return self._validation(self.parameters.model_copy(update={"training": training}))


def split_by_prompt(pairs: Sequence[TrainingPair], seed: int) -> tuple[list[TrainingPair], list[TrainingPair]]:
    """Split pairs by prompt into training and held-out pairs.

    Args:
        pairs: of at least two prompts.
        seed: of the held-out prompts.

    Returns:
        the training pairs, and at most :data:`MOST_HELD_OUT` held-out ones.

    Raises:
        InputError: there is only one prompt.
    """
    prompts = sorted({pair.prompt_id for pair in pairs}, key=lambda name: (sample_seed(seed, name, 0), name))
    if len(prompts) < 2:
        raise InputError(
            f"all {len(pairs)} pairs have the same prompt, so none can be held out",
            remedy="make pairs of more prompts before a probe",
        )
    held_out = set(prompts[: max(1, round(HELD_OUT_SHARE * len(prompts)))])
    measured = sorted(
        (pair for pair in pairs if pair.prompt_id in held_out),
        key=lambda pair: (sample_seed(seed, pair.pair_id, 0), pair.pair_id),
    )
    return [pair for pair in pairs if pair.prompt_id not in held_out], measured[:MOST_HELD_OUT]


def _gain(table: pd.DataFrame) -> dict[str, Any]:
    """Return the gain of the last judged checkpoint over the original, from the table of a validation."""
    if len(table) < 2:
        return {}
    original, last = table.iloc[0], table.iloc[-1]
    return {
        "gain": _number(last["reward"] - original["reward"]),
        # The table has the original's lead over the chosen checkpoint.
        "gain_low": _number(-original["gap_high"]),
        "gain_high": _number(-original["gap_low"]),
    }


def _stopped(log: pd.DataFrame) -> str:
    """Return when the automatic stop ended a training; empty if it did not."""
    if "trouble_step" not in log or not math.isfinite(log["trouble_step"].iloc[-1]):
        return ""
    return f"it was stopped after step {len(log)}, because it failed from step {log['trouble_step'].iloc[-1]:.0f} on"


def _last(rows: list[Mapping[str, float]]) -> dict[str, Any]:
    """Return the last figures in the log of a stopped training."""
    found = pd.DataFrame(rows).select_dtypes("number").tail(max(1, len(rows) // 4)).mean()
    rise = found.get("winner_change", math.nan) / found.get("winner_reference_error", math.nan)
    ratio = np.mean([found.get(f"{side}_norm_ratio", math.nan) for side in ("winner", "loser")])
    return {"winner_rise": _number(rise), "norm_ratio": _number(ratio), "loss": _number(found.get("loss", math.nan))}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def planned(folder: Path, identity: str, make: Callable[[], tuple[Grid, Costs]]) -> tuple[Grid, Costs]:
    """Return the stored plan of an interrupted probe, or make and store one.

    A new measurement could give another grid, in which finished results are missing.

    Args:
        folder: of the plan.
        identity: hash of the request.
        make: measures the costs and fits the grid.
    """
    place = folder / "plan.json"
    if place.is_file():
        known = json.loads(place.read_text(encoding="utf-8"))
        if known["identity"] == identity:
            rates, betas, steps = (known["grid"][name] for name in ("learning_rates", "betas", "steps"))
            return Grid(tuple(rates), tuple(betas), steps), Costs(**known["costs"])
    grid, costs = make()
    with storage_explained(place, "there are no results yet"):
        content = {"identity": identity, "grid": asdict(grid), "costs": asdict(costs)}
        write_text(place, json.dumps(content, indent=1) + "\n")
    return grid, costs
