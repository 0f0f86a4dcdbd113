"""From tables of pairs to a trained policy."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from vr_pipeline.engine.groups import Group
from vr_pipeline.engine.loop import Observe
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Part
from vr_pipeline.generators.policy import Policy, Start
from vr_pipeline.identifiers import pair_id
from vr_pipeline.items.folder import ItemFolder
from vr_pipeline.preferences.segments import COLUMN as SEGMENTS
from vr_pipeline.training.conditions import ConditionShards
from vr_pipeline.training.config import DpoTrainingParameters, PreferenceTrainingParameters
from vr_pipeline.training.held_out import HeldOutPairs
from vr_pipeline.training.pairs import PairData, TrainingPair, without
from vr_pipeline.training.preference_trainer import prepare_weights, train_on_pairs, training_identity
from vr_pipeline.training.shards import TensorShards
from vr_pipeline.training.validation import CheckpointValidation


def pair_data(
    pairs: pd.DataFrame,
    latents: ItemFolder | Sequence[ItemFolder],
    conditions: ItemFolder,
    contents: str = "",
    *,
    made_by: str = "",
) -> PairData:
    """Collect the training data of a table of pairs, without pairs for which the encoders returned NaN.

    Args:
        pairs: schema ``TrainingPairs``, those of one recipe.
        latents: shards of the clips' latents, in one folder or several.
        conditions: shards of the prompts' text conditions.
        contents: hash of the contents of clips and prompts.
        made_by: sampling identity of the trained generator, of whose clips the initial noise is known.

    Raises:
        InputError: there are no pairs, or a pair's latents or text condition are missing.
    """
    columns = ["prompt_id", "winner_video_id", "loser_video_id", "winner_reward", "loser_reward"]
    origins = [
        pairs[name] if (name := f"{side}_origin") in pairs else [""] * len(pairs) for side in ("winner", "loser")
    ]
    segments = pairs[SEGMENTS].fillna("") if SEGMENTS in pairs else [""] * len(pairs)
    rows = zip(pairs[columns].itertuples(index=False, name=None), *origins, segments, strict=True)
    training_pairs = [
        replace(
            TrainingPair(pair_id(*row[:3]), *row),
            seeds=(_seed(winner, made_by), _seed(loser, made_by)),
            segments=labels,
        )
        for row, winner, loser, labels in rows
    ]
    folders = [latents] if isinstance(latents, ItemFolder) else latents
    encoded, texts = TensorShards(*folders), ConditionShards(conditions)
    data = PairData(without(training_pairs, encoded.set_aside, texts.set_aside), encoded, texts, contents)
    data.check_complete()
    return data


def _seed(origin: object, made_by: str) -> int | None:
    """Return the seed of a clip made by the generator of this identity; None for others."""
    identity, _, seed = str(origin).partition(" ")
    return int(seed) if made_by and identity == made_by else None


def train_policy_on_pairs(
    data: PairData,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
    *,
    validation: CheckpointValidation | HeldOutPairs | None = None,
    observe: Observe | None = None,
    start: Start | None = None,
) -> tuple[Policy, pd.DataFrame]:
    """Train a policy on pairs.

    Args:
        data: pairs, latents and text conditions.
        generator: the generator to train.
        parameters: settings.
        validation: judges checkpoints, or measures them on held-out pairs.
        observe: receives the rows of the log.
        start: with which it starts; None for the original.

    Returns:
        the policy, whose provenance has the objective and, under ``training``, the identity; and the training log.

    Raises:
        InputError: as :func:`~vr_pipeline.training.preference_trainer.train_on_pairs` does.
    """
    trained: tuple[Part, ...] = ("denoiser",)
    loaded = load_generator(parameters.trained(generator), trained)
    loaded.start = start
    if start is not None:
        loaded.load_policy(start.adapter)
    judging = None if validation is None else validation.judging(loaded)
    identity = training_identity(loaded, data, parameters.training, judging.identity if judging else "")
    log = train_on_pairs(
        loaded,
        data,
        parameters.training,
        description=f"train on {len(data.pairs)} pairs",
        checkpoint=parameters.checkpoint_file(identity),
        validation=judging,
        retrain=parameters.retrain,
        observe=observe,
    )
    objective = {
        "loss": parameters.training.loss,
        "prediction": loaded.prediction_type,
        "error": f"mean squared error over all latent elements, {loaded.error_space} space",
    }
    if parameters.training.loss == "diffusion_dpo":
        objective["factor"] = factor_of(parameters.training, loaded.training_timesteps)
    training: dict[str, object] = {"identity": identity}
    if len(log) and "kept_step" in log and log["kept_step"].notna().any():
        last = log.iloc[-1]
        training["stopped"] = {name: int(last[name]) for name in ("step", "trouble_step", "kept_step")}
    policy = loaded.policy()
    if isinstance(validation, CheckpointValidation) and (earlier := validation.earlier_policy(log)) is not None:
        step, weights = earlier
        training["chosen"] = {"kept_step": step}
        if weights is None:
            prepare_weights(loaded, parameters.training, Group())
        policy = loaded.policy() if weights is None else weights
    return replace(policy, provenance={"objective": objective, "training": training}), log


def untrained_policy(generator: GeneratorParameters, parameters: DpoTrainingParameters) -> Policy:
    """Return what a training of no step makes: a policy that changes nothing."""
    trained: tuple[Part, ...] = ("denoiser",)
    loaded = load_generator(parameters.trained(generator), trained)
    prepare_weights(loaded, parameters.training, Group())
    return loaded.policy()


def factor_of(parameters: PreferenceTrainingParameters, timesteps: int) -> str:
    """Return the factor of the difference of errors in Diffusion-DPO's sigmoid, as a formula with its value."""
    if parameters.strength == "half_beta":
        return f"beta / 2 = {parameters.beta / 2:g}"
    return f"beta T omega = {parameters.beta * timesteps * parameters.omega:g}, T = {timesteps}"
