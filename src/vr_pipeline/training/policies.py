"""From tables of pairs to a trained policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator, Part
from vr_pipeline.generators.policy import Policy
from vr_pipeline.identifiers import pair_id
from vr_pipeline.training.conditions import ConditionShards
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.pairs import TrainingPair, check_complete, without
from vr_pipeline.training.preference_trainer import Observe, Validate, train_on_pairs, training_identity
from vr_pipeline.training.shards import TensorShards

if TYPE_CHECKING:
    from vr_pipeline.items.folder import ItemFolder


def train_policy_on_pairs(
    pairs: pd.DataFrame,
    latents: ItemFolder,
    conditions: ItemFolder,
    rewards: pd.DataFrame,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
    *,
    make_validation: Callable[[Generator], Validate] | None = None,
    judged_by: str = "",
    contents: str = "",
    observe: Observe | None = None,
) -> tuple[Policy, pd.DataFrame]:
    """Train a policy on a table of pairs.

    Args:
        pairs: table with prompt_id, winner_video_id and loser_video_id.
        latents: shards that hold the latents of all clips of the pairs.
        conditions: shards that hold the text conditions of all prompts of the pairs.
        rewards: table with video_id and total; used by the losses and weights that need rewards.
        generator: the generator to train.
        parameters: settings.
        make_validation: given the generator that is trained, returns what judges its weights at checkpoints.
        judged_by: identity of what checkpoints are judged by.
        contents: hash of the clips and prompts that the pairs name.
        observe: takes the rows of the log as they come.

    Returns:
        the policy, whose provenance has the objective and, under ``training``, the identity; and the training log.

    Raises:
        InputError: as :func:`~vr_pipeline.training.preference_trainer.train_on_pairs` does.
    """
    columns = ("prompt_id", "winner_video_id", "loser_video_id")
    totals = dict(zip(rewards["video_id"].astype(str), rewards["total"].astype(float), strict=True))
    training_pairs = [
        TrainingPair(
            pair_id(prompt, winner, loser),
            prompt,
            winner,
            loser,
            winner_reward=totals.get(winner, math.nan),
            loser_reward=totals.get(loser, math.nan),
        )
        for prompt, winner, loser in zip(*(pairs[column].astype(str) for column in columns), strict=True)
    ]
    encoded, texts = TensorShards(latents), ConditionShards(conditions)
    training_pairs = without(training_pairs, encoded.set_aside, texts.set_aside)
    # Before a model is loaded and the original is judged.
    check_complete(training_pairs, encoded, texts)
    trained: tuple[Part, ...] = ("denoiser",)
    loaded = load_generator(parameters.trained(generator), trained)
    identity = training_identity(loaded, training_pairs, parameters.training, judged_by, contents)
    log = train_on_pairs(
        loaded,
        training_pairs,
        encoded,
        texts,
        parameters.training,
        description=f"train on {len(training_pairs)} pairs",
        checkpoint=Path(parameters.checkpoints) / f"{identity}.safetensors" if parameters.checkpoints else None,
        validate=make_validation(loaded) if make_validation is not None else None,
        judged_by=judged_by,
        contents=contents,
        retrain=parameters.retrain,
        observe=observe,
    )
    objective = {
        "loss": parameters.training.loss,
        "prediction": loaded.prediction_type,
        "error": f"mean squared error over all latent elements, {loaded.error_space} space",
    }
    provenance = {"objective": objective, "training": {"identity": identity}}
    return replace(loaded.policy(), provenance=provenance), log
