"""Nodes of evaluation. Inputs of the recipes come last, in the order of the recipes."""

from collections.abc import Callable, Collection, Sequence
from functools import partial, update_wrapper
from typing import Any

import pandas as pd
from markupsafe import Markup

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.drawing import Figure
from vr_pipeline.evaluation.config import EvaluationParameters
from vr_pipeline.evaluation.metrics import evaluation_metrics, no_oracle, pairs_confirmed
from vr_pipeline.evaluation.plots import deviations_of_policies, rewards_by_dimension, training_curves
from vr_pipeline.evaluation.policies import plan_policy_clips
from vr_pipeline.evaluation.report.page import join_sections, section_html
from vr_pipeline.evaluation.report.sections import Section
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.policy import Policy
from vr_pipeline.micro_world.auditor import Auditor, AuditorReward
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward import OracleReward
from vr_pipeline.pipelines.recipes import Recipes, by_recipe, titles_of
from vr_pipeline.pipelines.video_generation.nodes import prompts_of_splits
from vr_pipeline.rewards.checklist.deviations import policy_deviations
from vr_pipeline.work import WorkPlan


def generate_evaluation_videos(
    filtered_prompts: pd.DataFrame,
    generator: GeneratorParameters,
    parameters: EvaluationParameters,
    *policies: Policy,
    recipes: Recipes,
) -> WorkPlan:
    """Make clips of the original generator and of every policy for held-out prompts, from the same seeds."""
    prompts = prompts_of_splits(filtered_prompts, parameters.splits, "evaluation.splits")
    return plan_policy_clips(prompts, by_recipe(recipes, policies), generator, parameters)


def consult_oracle(
    oracle: Oracle | None, evaluation_videos: Any, evaluation_video_index: pd.DataFrame, checklist: Checklist
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ask the oracle about the same clips; return empty tables without an oracle."""
    if oracle is None:
        return no_oracle(checklist)
    model = OracleReward(oracle, checklist)
    answers = model.measured(evaluation_videos, evaluation_video_index)
    return answers, model.rewards(answers, evaluation_video_index)


def consult_auditor(
    auditor: Auditor | None, evaluation_videos: Any, evaluation_video_index: pd.DataFrame, checklist: Checklist
) -> pd.DataFrame:
    """Score the same clips with the auditor, which nothing else uses; return an empty table without one."""
    if auditor is None:
        return no_oracle(checklist)[1]
    model = AuditorReward(auditor, checklist)
    return model.rewards(model.measured(evaluation_videos, evaluation_video_index), evaluation_video_index)


def audit_pairs(
    auditor: Auditor | None,
    videos: Any,
    video_index: pd.DataFrame,
    checklist: Checklist,
    *pairs: pd.DataFrame,
    recipes: Recipes,
) -> dict[str, Any]:
    """Compute the share of each recipe's pairs whose winner the auditor scores higher; empty without an auditor."""
    if auditor is None:
        return {}
    named = by_recipe(recipes, pairs)
    of_pairs = {name for table in pairs for side in ("winner", "loser") for name in table[f"{side}_video_id"]}
    index = video_index[video_index["video_id"].isin(of_pairs)].reset_index(drop=True)
    model = AuditorReward(auditor, checklist)
    rewards = model.rewards(model.measured(videos, index), index)
    return {recipe: pairs_confirmed(table, rewards) for recipe, table in named.items() if len(table)}


def compute_evaluation_metrics(
    evaluation_rewards: pd.DataFrame,
    evaluation_oracle_rewards: pd.DataFrame,
    judge_oracle_agreement: dict[str, Any],
    evaluation_video_index: pd.DataFrame,
    reward_agreement: dict[str, Any],
    *auditor_and_pairs: Any,
    recipes: Recipes,
) -> dict[str, Any]:
    """Compute rewards by policy with standard errors, gains with intervals, agreement, and counts of pairs."""
    auditor_rewards, audit, *pairs = auditor_and_pairs if len(auditor_and_pairs) > 1 else (*auditor_and_pairs, {})
    return evaluation_metrics(
        evaluation_rewards,
        evaluation_oracle_rewards,
        judge_oracle_agreement,
        evaluation_video_index,
        reward_agreement,
        by_recipe(recipes, pairs) if pairs else {},
        auditor_rewards=auditor_rewards,
        audit=audit,
    )


def compute_reward_metrics(
    evaluation_rewards: pd.DataFrame,
    evaluation_oracle_rewards: pd.DataFrame,
    evaluation_auditor_rewards: pd.DataFrame,
    evaluation_video_index: pd.DataFrame,
    reward_description: dict[str, Any],
    *audit_and_pairs: Any,
    recipes: Recipes,
) -> dict[str, Any]:
    """Compute rewards by policy with standard errors, gains with intervals, and counts of pairs."""
    audit, *pairs = audit_and_pairs or ({},)
    metrics = evaluation_metrics(
        evaluation_rewards,
        evaluation_oracle_rewards,
        {},
        evaluation_video_index,
        None,
        by_recipe(recipes, pairs) if pairs else {},
        auditor_rewards=evaluation_auditor_rewards,
        audit=audit,
    )
    # The path of a model is not a result.
    return metrics | {"reward": {name: value for name, value in reward_description.items() if name != "path"}}


def compare_policies_by_sub_dimension(
    evaluation_answers: pd.DataFrame, evaluation_video_index: pd.DataFrame, checklist: Checklist, recipes: Recipes
) -> tuple[pd.DataFrame, Figure]:
    """Measure the lead of each policy over the original in every sub-dimension, as a table and a plot."""
    deviations = policy_deviations(evaluation_answers, evaluation_video_index, checklist)
    table = pd.concat([part.assign(policy=policy) for policy, part in deviations.items()], ignore_index=True)
    return table, deviations_of_policies(deviations, titles_of(recipes))


def draw_evaluation_plots(
    evaluation_metrics: dict[str, Any], *training_logs: pd.DataFrame, recipes: Recipes
) -> tuple[Figure, Figure]:
    """Draw reward by dimension and policy with standard errors, and the curves of every training."""
    titles, logs = titles_of(recipes), by_recipe(recipes, training_logs)
    return rewards_by_dimension(evaluation_metrics, titles), training_curves(logs, titles)


def report_section(section: Section, there: Collection[str], recipes: Recipes) -> partial[str]:
    """Return the node function that makes a section, with the section's docstring.

    Args:
        section: the section.
        there: the datasets of the run; the section gets None for others.
        recipes: the compared recipes.
    """
    function = partial(_make_section, section.make, section.places([one.name for one in recipes], there), recipes)
    # Kedro reads parameter types from annotations; other nodes declare those of the sections.
    vars(function).update(__name__=f"report_{section.name}", __doc__=section.make.__doc__, __annotations__={})
    return function


def _make_section(make: Callable[..., Sequence[Markup]], places: Sequence[bool], recipes: Recipes, *inputs: Any) -> str:
    given = iter(inputs)
    return section_html(make(titles_of(recipes), *(next(given) if there else None for there in places)))


def report_page(sections: Sequence[Section]) -> Callable[..., str]:
    """Return the node function that writes the page of these sections."""
    return update_wrapper(partial(write_report, names=[section.name for section in sections]), write_report)


def write_report(parameters: EvaluationParameters, *sections: str, names: Sequence[str]) -> str:
    """Write one self-contained page of all sections."""
    return join_sections(parameters.report, dict(zip(names, sections, strict=True)))
