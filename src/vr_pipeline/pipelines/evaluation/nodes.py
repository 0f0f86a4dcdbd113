"""Nodes of evaluation. What belongs to a recipe comes last, in the order of the recipes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial, update_wrapper
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.evaluation.config import EvaluationParameters
from vr_pipeline.evaluation.report.sections import Section
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.policy import Policy
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.pipelines.recipes import Recipes, by_recipe, titles_of
from vr_pipeline.pipelines.video_generation.nodes import prompts_of_splits
from vr_pipeline.work import WorkPlan


def generate_evaluation_videos(
    filtered_prompts: pd.DataFrame,
    generator: GeneratorParameters,
    parameters: EvaluationParameters,
    *policies: Policy,
    recipes: Recipes,
) -> WorkPlan:
    """Make clips of the original generator and of every policy for held-out prompts, from the same seeds."""
    from vr_pipeline.evaluation.policies import plan_policy_clips

    prompts = prompts_of_splits(filtered_prompts, parameters.splits, "evaluation.splits")
    return plan_policy_clips(prompts, by_recipe(recipes, policies), generator, parameters)


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


def compare_judge_and_oracle(
    evaluation_answers: pd.DataFrame, evaluation_oracle_answers: pd.DataFrame
) -> dict[str, Any]:
    """Compute the share of equal answers of judge and oracle, over all and by question; empty without an oracle."""
    from vr_pipeline.evaluation.metrics import judge_oracle_agreement

    return judge_oracle_agreement(evaluation_answers, evaluation_oracle_answers)


def compute_evaluation_metrics(
    evaluation_rewards: pd.DataFrame,
    evaluation_oracle_rewards: pd.DataFrame,
    judge_oracle_agreement: dict[str, Any],
    evaluation_video_index: pd.DataFrame,
    reward_agreement: dict[str, Any],
    *pairs: pd.DataFrame,
    recipes: Recipes,
) -> dict[str, Any]:
    """Compute rewards by policy with standard errors, gains with intervals, agreement, and counts of pairs."""
    from vr_pipeline.evaluation.metrics import evaluation_metrics

    return evaluation_metrics(
        evaluation_rewards,
        evaluation_oracle_rewards,
        judge_oracle_agreement,
        evaluation_video_index,
        reward_agreement,
        by_recipe(recipes, pairs),
    )


def compute_reward_metrics(
    evaluation_rewards: pd.DataFrame,
    evaluation_oracle_rewards: pd.DataFrame,
    evaluation_video_index: pd.DataFrame,
    reward_description: dict[str, Any],
    *pairs: pd.DataFrame,
    recipes: Recipes,
) -> dict[str, Any]:
    """Compute rewards by policy with standard errors, gains with intervals, and counts of pairs."""
    from vr_pipeline.evaluation.metrics import evaluation_metrics

    index, selected = evaluation_video_index, by_recipe(recipes, pairs) if pairs else {}
    metrics = evaluation_metrics(evaluation_rewards, evaluation_oracle_rewards, {}, index, None, selected)
    # The place of a model is no part of what was found.
    return metrics | {"reward": {name: value for name, value in reward_description.items() if name != "path"}}


def compare_policies_by_sub_dimension(
    evaluation_answers: pd.DataFrame, evaluation_video_index: pd.DataFrame, checklist: Checklist, recipes: Recipes
) -> tuple[pd.DataFrame, Figure]:
    """Measure how far each policy is above the original in every sub-dimension, as a table and a plot."""
    from vr_pipeline.evaluation.plots import deviations_of_policies
    from vr_pipeline.rewards.checklist.deviations import policy_deviations

    deviations = policy_deviations(evaluation_answers, evaluation_video_index, checklist)
    table = pd.concat([part.assign(policy=policy) for policy, part in deviations.items()], ignore_index=True)
    return table, deviations_of_policies(deviations, titles_of(recipes))


def draw_evaluation_plots(
    evaluation_metrics: dict[str, Any], *training_logs: pd.DataFrame, recipes: Recipes
) -> tuple[Figure, Figure]:
    """Draw reward by dimension and policy with standard errors, and the curves of every training."""
    from vr_pipeline.evaluation.plots import rewards_by_dimension, training_curves

    titles, logs = titles_of(recipes), by_recipe(recipes, training_logs)
    return rewards_by_dimension(evaluation_metrics, titles), training_curves(logs, titles)


def report_section(section: Section, there: Collection[str], recipes: Recipes) -> partial[str]:
    """Return the node function that makes a section, with the documentation of the section's own.

    Args:
        section: the section.
        there: the datasets that the run has: the section gets None for others.
        recipes: what is compared.
    """
    function = partial(_make_section, section.make, section.places([one.name for one in recipes], there), recipes)
    # Kedro reads types of parameters from annotations; it finds those of the sections at other nodes.
    vars(function).update(__name__=f"report_{section.name}", __doc__=section.make.__doc__, __annotations__={})
    return function


def _make_section(make: Callable[..., Sequence[Markup]], places: Sequence[bool], recipes: Recipes, *inputs: Any) -> str:
    from vr_pipeline.evaluation.report.page import section_html

    given = iter(inputs)
    return section_html(make(titles_of(recipes), *(next(given) if there else None for there in places)))


def report_page(sections: Sequence[Section]) -> Callable[..., str]:
    """Return the node function that writes the page of these sections."""
    return update_wrapper(partial(write_report, names=[section.name for section in sections]), write_report)


def write_report(parameters: EvaluationParameters, *sections: str, names: Sequence[str]) -> str:
    """Write one self-contained page of all sections."""
    from vr_pipeline.evaluation.report.page import join_sections

    return join_sections(parameters.report, dict(zip(names, sections, strict=True)))
