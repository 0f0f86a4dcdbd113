"""From labelled pairs, their latents and conditions to a trained latent reward and its report."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.engine.config import CheckpointParameters
from vr_pipeline.engine.determinism import deterministic
from vr_pipeline.engine.groups import Group, launched_processes, training_group
from vr_pipeline.engine.loop import Observe, best_checkpoint, train_stored
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Part, weights_identity
from vr_pipeline.generators.latent_reward import LatentReward, LatentRewardSettings
from vr_pipeline.identifiers import code_hash, content_hash, sample_seed
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.training.conditions import ConditionShards
from vr_pipeline.training.latent_reward.config import LatentRewardTrainingParameters
from vr_pipeline.training.latent_reward.data import LatentPairs
from vr_pipeline.training.latent_reward.report import noise_deviations, report_by_noise, summarise
from vr_pipeline.training.latent_reward.task import LatentRewardTask, even_times, trained_pairs
from vr_pipeline.training.shards import TensorShards

logger = logging.getLogger(__name__)

_COMPUTING = (
    *(f"vr_pipeline.generators.{name}" for name in ("early_blocks", "latent_reward")),
    *(f"vr_pipeline.engine.{name}" for name in ("loop", "order", "optimisation", "schedules", "fine_tuning")),
    *(f"vr_pipeline.training.latent_reward.{name}" for name in ("data", "task")),
    "vr_pipeline.rewards.videoreward.losses",
)
"""Modules that determine the result of a step, besides those of the generator."""

_NO_PART_OF_IDENTITY = {
    *CheckpointParameters.model_fields,
    *("generator_batch_size", "shard_size", "report_bins", "own_pairs", "fit"),
}


@dataclass(frozen=True, eq=False)
class TrainedLatentReward:
    """The result of training.

    Attributes:
        reward: with the best checkpoint's weights.
        report: schema ``LatentRewardReport``, on test pairs.
        log: one row per step.
        summary: figures of the run.
    """

    reward: LatentReward
    report: pd.DataFrame
    log: pd.DataFrame
    summary: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the reward's folder."""
        self.reward.save(folder)


def encoded_pairs(table: pd.DataFrame, latents: ItemFolder, conditions: ItemFolder) -> LatentPairs:
    """Return pairs with their latents and conditions, without those for which the encoders returned NaN.

    Args:
        table: schema ``LatentRewardPairs``.
        latents: shards of the clips' latents.
        conditions: shards of the prompts' text conditions.
    """
    encoded, texts = TensorShards(latents), ConditionShards(conditions)
    return LatentPairs(table, encoded, texts).usable(encoded.set_aside, texts.set_aside)


def train_latent_reward(
    data: LatentPairs,
    generator: GeneratorParameters,
    parameters: LatentRewardTrainingParameters,
    *,
    observe: Observe | None = None,
) -> TrainedLatentReward:
    """Train a latent reward, keep the most accurate checkpoint on validation pairs, and test it on test pairs.

    The same input and number of threads give the same weights on the same machine. Processes that were launched
    together share every step.

    Args:
        data: pairs, latents and conditions.
        generator: its first blocks are copied and trained.
        parameters: all settings.
        observe: as for :func:`vr_pipeline.engine.loop.train`.

    Raises:
        InputError: the generator cannot be trained, or processes cannot share a step evenly.
    """
    import torch

    parameters.check_generator(generator.dtype, launched_processes())
    with deterministic(parameters.threads), torch.random.fork_rng(devices=[]):
        reward = _new_reward(data, generator, parameters)
        task = LatentRewardTask(reward, data, parameters)
        task.identity = training_identity(data, generator, parameters)
        with training_group(task.device) as group:
            return _finish(task, train_stored(task, group=group, observe=observe), group)


def _new_reward(
    data: LatentPairs, generator: GeneratorParameters, parameters: LatentRewardTrainingParameters
) -> LatentReward:
    # The generator's denoiser is freed afterwards: training needs only the first blocks.
    needed: tuple[Part, ...] = ("denoiser",)
    loaded = load_generator(generator, needed)
    settings = LatentRewardSettings(
        dimensions=data.names,
        network=parameters.network,
        times=parameters.times,
        base=weights_identity(generator),
        provenance={
            "trained_by": parameters.block,
            "training": training_identity(data, generator, parameters),
            "pairs": len(trained_pairs(data, parameters)),
            "loss": parameters.loss,
        },
    )
    return LatentReward(loaded, settings, sample_seed(parameters.seed, "latent reward", 0))


def training_identity(
    data: LatentPairs, generator: GeneratorParameters, parameters: LatentRewardTrainingParameters
) -> str:
    """Hash what determines a training: code, generator, pairs and labels in any order, settings, clips and prompts."""
    return content_hash(
        "latent reward training",
        parameters.model_dump_json(exclude=_NO_PART_OF_IDENTITY),
        weights_identity(generator),
        generator.model_dump_json(include={"family", "dtype", "height", "width", "num_frames"}),
        data.contents(),
        # A stored result must not be used by code that would compute another.
        code_hash(*_COMPUTING),
    )


def _finish(task: LatentRewardTask, log: pd.DataFrame, group: Group) -> TrainedLatentReward:
    """Report on test pairs, or on validation pairs without any, and freeze the reward."""
    given, data = task.parameters, task.data
    chose = not data.of("test")
    if chose:
        logger.warning(
            "There are no test pairs: the report uses the validation pairs, which selected the checkpoint, so its "
            "figures may be too high"
        )
    pairs = data.of("validation" if chose else "test")
    bins = even_times((0.0, 1.0), given.report_bins)
    scores, apart = (task.held_out_scores(pairs, bins, group, one_noise=one) for one in (True, False))
    rows = [pair.row for pair in pairs]
    label, units = data.label[rows], data.table["unit"].iloc[rows].astype(str).tolist()
    deviations = noise_deviations(task.generator, bins)
    report = report_by_noise(scores, apart, label, units, data.names, deviations, given.held_out)
    summary = {
        "steps": len(log),
        **best_checkpoint(log, task.metric),
        "pairs": {split: len(data.of(split)) for split in ("train", "validation", "test")},
        "training_pairs": len(task.pairs),
        "prompts": {
            split: int(data.table.loc[data.table["split"] == split, "prompt_id"].nunique())
            for split in ("train", "validation", "test")
        },
        "report_is_on_validation": chose,
        "by_dimension": summarise(scores, label, units, data.names, given.held_out),
        "trained_weights": sum(weight.numel() for weight in task.weights()),
    }
    task.reward.freeze()
    return TrainedLatentReward(task.reward, report, log, summary)
