"""Nodes of online_round. After a stop, a round has no prompts, so its tables are empty and the last policy is kept."""

from dataclasses import replace
from typing import Any

import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.plans import plan_clips
from vr_pipeline.generators.policy import Adapter, Policy, Start
from vr_pipeline.identifiers import sample_seed
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.pairs.config import PairSelectionParameters
from vr_pipeline.pairs.rules import RULES
from vr_pipeline.pipelines.checklist_inference.nodes import collect_answers
from vr_pipeline.pipelines.dpo_training.nodes import encode_latents, train_and_validate
from vr_pipeline.pipelines.weight_regression.nodes import score_videos
from vr_pipeline.schemas import ChecklistAnswers, Rewards, Table, TrainingPairs
from vr_pipeline.training.checkpoint_reward import CheckpointReward
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.online import (
    ROUND,
    UNCERTAINTY,
    OnlineParameters,
    Verdict,
    choose_prompts,
    judge_round,
    replayed,
    round_result,
    settings_of_round,
    uncertainty,
)
from vr_pipeline.training.policies import untrained_policy
from vr_pipeline.training.table import join_pairs
from vr_pipeline.work import WorkPlan


def empty(table: type[Table]) -> pd.DataFrame:
    """Return a table without rows, for a round after a stop."""
    columns = table.to_schema().columns
    return pd.DataFrame({name: [] for name, column in columns.items() if not column.regex})


def choose_round_prompts(
    filtered_prompts: pd.DataFrame, parameters: OnlineParameters, *before: Any, number: int
) -> pd.DataFrame:
    """Choose the prompts of a round; none after a stop.

    Args:
        filtered_prompts: all prompts.
        parameters: of the rounds.
        before: the result of the last round, then the rewards of all earlier ones.
        number: of the round.
    """
    prompts = choose_prompts(filtered_prompts, parameters, number, before[1:])
    return prompts.head(0) if before and before[0]["stopped"] else prompts


def generate_round_videos(
    prompts: pd.DataFrame, generator: GeneratorParameters, parameters: OnlineParameters, *last: Policy, number: int
) -> WorkPlan:
    """Make clips with the policy of the last round, in the first round with the original."""
    return plan_clips(
        prompts,
        generator,
        videos_per_prompt=parameters.videos_per_prompt,
        seed=sample_seed(parameters.seed, "round", number),
        policy=last[0] if last else None,
        metadata={ROUND: number},
    )


def collect_round_answers(
    answer_shards: Any, video_index: pd.DataFrame, checklist: Checklist, parameters: ChecklistInferenceParameters
) -> pd.DataFrame:
    """Collect the answers about a round's clips, and apply the gates."""
    if video_index.empty:
        return empty(ChecklistAnswers)
    return collect_answers(answer_shards, video_index, checklist, parameters)


def score_round_videos(
    answers: pd.DataFrame, video_index: pd.DataFrame, checklist: Checklist, weights: dict[str, Any], number: int
) -> pd.DataFrame:
    """Compute the rewards of a round's clips, and how uncertain the judge was."""
    if answers.empty:
        return empty(Rewards)
    rewards = score_videos(answers, video_index, checklist, weights)
    return rewards.assign(**{UNCERTAINTY: rewards["video_id"].map(uncertainty(answers))}).assign(**{ROUND: number})


def select_round_pairs(
    rewards: pd.DataFrame,
    video_index: pd.DataFrame,
    filtered_prompts: pd.DataFrame,
    pair_selection: PairSelectionParameters,
    parameters: OnlineParameters,
    *earlier: pd.DataFrame,
    number: int,
) -> pd.DataFrame:
    """Select pairs among the clips of a round by the recipe's rule, and add pairs of earlier rounds."""
    if rewards.empty:
        return empty(TrainingPairs)
    recipe = parameters.recipe
    if recipe not in pair_selection.recipes:
        raise InputError(
            f"unknown recipe '{recipe}'",
            field="online_mpo.recipe",
            remedy=f"use one of pair_selection: {', '.join(pair_selection.recipes)}",
        )
    selected = RULES[pair_selection.recipes[recipe].rule](rewards, None, pair_selection.limits(recipe))[0]
    pairs = join_pairs({recipe: selected}, {recipe: rewards}, filtered_prompts, video_index).assign(**{ROUND: number})
    if not earlier or pairs.empty:
        return pairs
    old = replayed(earlier, round(parameters.replay * len(pairs)), parameters, number)
    return pd.concat([pairs, old], ignore_index=True) if len(old) else pairs


def encode_round_latents(
    videos: Any,
    training_pairs: pd.DataFrame,
    generator: GeneratorParameters,
    parameters: DpoTrainingParameters,
    number: int,
) -> WorkPlan:
    """Encode the clips of a round's new pairs; those of replayed pairs were encoded in their round."""
    return encode_latents(videos, training_pairs[training_pairs[ROUND] == number], generator, parameters)


def train_round(
    training_pairs: pd.DataFrame,
    checkpoint_reward: dict[str, Any],
    generator: GeneratorParameters,
    dpo_training: DpoTrainingParameters,
    parameters: OnlineParameters,
    *before: Any,
    number: int,
) -> tuple[Policy, pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Train the policy of the last round on a round's pairs, and keep the better of the two.

    Args:
        training_pairs: new and replayed pairs.
        checkpoint_reward: judges the checkpoints.
        generator: the original.
        dpo_training: settings of trainings.
        parameters: of the rounds.
        before: conditions of the prompts of all rounds, latents of this and all earlier rounds, then policy, training
            log, validation log and result of the last round.
        number: of the round.

    Returns:
        policy, training log, validation log and result; after a stop those of the last round, which stays the last.
    """
    conditions, latents, last = before[0], before[1 : number + 1], before[number + 1 :]
    policy, log, validated, result = last or (None, None, None, None)
    if result is not None and result["stopped"]:
        return policy, log, validated, result
    if result is not None and training_pairs.empty:
        nothing = Verdict(False, "the rule selects no pair")
        return policy, log, validated, round_result(nothing, number, result, training_pairs)
    settings = settings_of_round(dpo_training, parameters, number)
    start = Start(policy, renewed=parameters.reference == "renewed") if isinstance(policy, Adapter) else None
    made, log, validated = train_and_validate(
        training_pairs,
        training_pairs.head(0),
        latents,
        conditions,
        CheckpointReward.model_validate(checkpoint_reward),
        generator,
        settings,
        start,
    )
    verdict = judge_round(validated, parameters, settings.validation)
    if verdict.accepted:
        policy = replace(made, provenance=made.provenance | {ROUND: number})
    elif policy is None:
        policy = untrained_policy(generator, settings)
    return policy, log, validated, round_result(verdict, number, result, training_pairs)


def list_rounds(*results: dict[str, Any]) -> dict[str, Any]:
    """List the rounds that were trained, and why no round followed."""
    rounds = {str(result[ROUND]): result for result in results}
    return {"rounds": rounds, "policy_of": results[-1]["policy_of"], "stopped": results[-1]["stopped"]}
