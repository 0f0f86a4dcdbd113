"""Nodes of evaluation."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.config import EvaluationParameters
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.policy import Policy
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.pairs.config import PairSelectionParameters
from vr_pipeline.work import WorkPlan


def generate_evaluation_videos(
    filtered_prompts: pd.DataFrame,
    policy_mpo: Policy,
    policy_dpo: Policy,
    generator: GeneratorParameters,
    parameters: EvaluationParameters,
) -> WorkPlan:
    """Make clips of the original generator and of both policies for held-out prompts, from the same seeds."""
    from vr_pipeline.evaluation.policies import plan_policy_clips

    prompts = filtered_prompts[filtered_prompts["split"].isin(parameters.splits)]
    if prompts.empty:
        raise InputError(
            f"no prompt is left in the splits {', '.join(parameters.splits)}",
            field="evaluation.splits",
            remedy="choose other splits, change the shares in prompt_filtering, or supply more prompts",
        )
    return plan_policy_clips(prompts, {"dpo": policy_dpo, "mpo": policy_mpo}, generator, parameters)


def index_evaluation_videos(evaluation_videos: Any) -> pd.DataFrame:
    """List the clips of every policy."""
    from vr_pipeline.items.video_index import index_made_clips

    return index_made_clips(evaluation_videos)


def consult_oracle(
    oracle: Oracle | None, evaluation_videos: Any, evaluation_video_index: pd.DataFrame, checklist: Checklist
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the oracle about the same clips; empty tables where there is none."""
    from vr_pipeline.evaluation.metrics import no_oracle
    from vr_pipeline.micro_world.reward import OracleReward

    if oracle is None:
        return no_oracle(checklist)
    model = OracleReward(oracle, checklist)
    answers = model.measured(evaluation_videos, evaluation_video_index)
    return answers, model.rewards(answers, evaluation_video_index)


def compute_evaluation_metrics(
    evaluation_rewards: pd.DataFrame,
    evaluation_oracle_rewards: pd.DataFrame,
    evaluation_answers: pd.DataFrame,
    evaluation_oracle_answers: pd.DataFrame,
    evaluation_video_index: pd.DataFrame,
    reward_agreement: dict[str, Any],
    preference_pairs_mpo: pd.DataFrame,
    preference_pairs_dpo: pd.DataFrame,
) -> dict[str, Any]:
    """Rewards by policy with standard errors, gains with intervals, agreement with people, and counts of pairs."""
    from vr_pipeline.evaluation.metrics import evaluation_metrics

    return evaluation_metrics(
        judge_rewards=evaluation_rewards,
        oracle_rewards=evaluation_oracle_rewards,
        judge_answers=evaluation_answers,
        oracle_answers=evaluation_oracle_answers,
        index=evaluation_video_index,
        agreement=reward_agreement,
        pairs={"mpo": preference_pairs_mpo, "dpo": preference_pairs_dpo},
    )


def compare_policies_by_sub_dimension(
    evaluation_answers: pd.DataFrame, evaluation_video_index: pd.DataFrame, checklist: Checklist
) -> tuple[pd.DataFrame, Figure]:
    """How far each policy is above the original in every sub-dimension, as a table and a picture."""
    from vr_pipeline.evaluation.plots import deviations_of_policies
    from vr_pipeline.rewards.checklist.deviations import policy_deviations

    deviations = policy_deviations(evaluation_answers, evaluation_video_index, checklist)
    table = pd.concat([part.assign(policy=policy) for policy, part in deviations.items()], ignore_index=True)
    return table, deviations_of_policies(deviations)


def draw_evaluation_plots(
    evaluation_metrics: dict[str, Any], training_log_mpo: pd.DataFrame, training_log_dpo: pd.DataFrame
) -> tuple[Figure, Figure]:
    """Reward by dimension and policy with standard errors, and the curves of both trainings."""
    from vr_pipeline.evaluation.plots import rewards_by_dimension, training_curves

    return (
        rewards_by_dimension(evaluation_metrics),
        training_curves({"mpo": training_log_mpo, "dpo": training_log_dpo}),
    )


def write_report(
    evaluation_metrics: dict[str, Any],
    evaluation_videos: Any,
    evaluation_video_index: pd.DataFrame,
    evaluation_rewards: pd.DataFrame,
    evaluation_oracle_rewards: pd.DataFrame,
    reward_weights: dict[str, Any],
    checklist: Checklist,
    training_log_mpo: pd.DataFrame,
    training_log_dpo: pd.DataFrame,
    validation_log_mpo: pd.DataFrame,
    validation_log_dpo: pd.DataFrame,
    prompt_filter_report: dict[str, Any],
    pair_selection_report: dict[str, Any],
    evaluation_answers: pd.DataFrame,
    evaluation_oracle_answers: pd.DataFrame,
    preference_pairs_dpo: pd.DataFrame,
    videos: Any,
    video_index: pd.DataFrame,
    reward_agreement: dict[str, Any],
    pair_scores: pd.DataFrame,
    accuracy_curve: pd.DataFrame,
    preference_answers: pd.DataFrame,
    preference_deviations: pd.DataFrame,
    policy_deviations: pd.DataFrame,
    rewards: pd.DataFrame,
    pair_selection: PairSelectionParameters,
    parameters: EvaluationParameters,
) -> str:
    """Write one self-contained page: clips side by side, rewards, weights, pairs and training."""
    from vr_pipeline.evaluation.plots import deviations_of_policies
    from vr_pipeline.evaluation.report import render_report
    from vr_pipeline.evaluation.report.run_lines import table_hash
    from vr_pipeline.pipelines.pair_selection.nodes import draw_pair_plots
    from vr_pipeline.pipelines.weight_regression.nodes import draw_weight_plots

    _, calibration, curve, correlation, preferred = draw_weight_plots(
        reward_weights, checklist, pair_scores, accuracy_curve, preference_answers, preference_deviations
    )
    gaps, fates = draw_pair_plots(rewards, pair_selection_report, pair_selection)
    by_policy = policy_deviations.groupby("policy", sort=False)
    policies = deviations_of_policies({str(policy): part for policy, part in by_policy})
    return render_report(
        metrics=evaluation_metrics,
        videos=evaluation_videos,
        index=evaluation_video_index,
        judge_rewards=evaluation_rewards,
        oracle_rewards=evaluation_oracle_rewards,
        weights=reward_weights,
        checklist=checklist,
        training_logs={"mpo": training_log_mpo, "dpo": training_log_dpo},
        validation_logs={"mpo": validation_log_mpo, "dpo": validation_log_dpo},
        prompt_filter=prompt_filter_report,
        pair_selection=pair_selection_report,
        parameters=parameters.report,
        judge_answers=evaluation_answers,
        oracle_answers=evaluation_oracle_answers,
        pairs=preference_pairs_dpo,
        pair_videos=videos,
        pair_index=video_index,
        provenance={
            "Training clips": f"{len(video_index):,} files, hash {table_hash(video_index[['video_id', 'sha256']])}",
            "Compared pairs": f"{len(pair_scores):,} rows, hash {table_hash(pair_scores)}",
        },
        reward_agreement=reward_agreement,
        pictures={
            "Calibration: predicted probability of preference, against how often people agreed": calibration,
            "Agreement with people against the number of questions kept (band: 95 % interval). A pair with equal "
            "rewards counts as wrong, which is frequent where few questions are answered yes or no": curve,
            "Correlation of the answers to the questions": correlation,
            "Share of yes by sub-dimension: clips that people preferred, against the others": preferred,
            "Share of yes by sub-dimension: each policy against the original": policies,
            "Gap by dimension: pairs that dominance keeps and rejects": gaps,
            "Fate of all candidate pairs": fates,
        },
    )
