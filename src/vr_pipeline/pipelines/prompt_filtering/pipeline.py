"""Pipeline prompt_filtering."""

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.prompt_filtering import nodes
from vr_pipeline.pipelines.steps import step
from vr_pipeline.prompts.plots import plot_report
from vr_pipeline.prompts.report import filter_report

PARAMETERS = "params:prompt_filtering"
DROPPED = [f"dropped_by_{what}" for what in ("cleaning", "words", "meaning", "review", "choice", "split")]


def create_pipeline(**_: object) -> Pipeline:
    """Lead from raw_prompts to filtered_prompts, prompt_filter_decisions and the report with its plot."""
    return Pipeline(
        [
            step(nodes.clean_prompts, ["raw_prompts", PARAMETERS], ["clean_prompts", DROPPED[0]]),
            step(nodes.drop_same_words, ["clean_prompts", PARAMETERS], ["lexically_distinct_prompts", DROPPED[1]]),
            step(
                nodes.plan_embeddings,
                ["lexically_distinct_prompts", PARAMETERS],
                "prompt_embeddings",
                name="embed_prompts",
                tags=["gpu"],
            ),
            step(
                nodes.drop_same_meaning,
                ["lexically_distinct_prompts", "prompt_embeddings", PARAMETERS],
                ["distinct_prompts", DROPPED[2]],
            ),
            step(
                nodes.plan_reviews,
                ["distinct_prompts", PARAMETERS],
                "prompt_reviews",
                name="review_prompts",
                tags=["gpu"],
            ),
            step(nodes.apply_reviews, ["distinct_prompts", "prompt_reviews"], ["usable_prompts", DROPPED[3]]),
            step(
                nodes.choose_prompts,
                ["usable_prompts", "prompt_embeddings", PARAMETERS],
                ["chosen_prompts", DROPPED[4]],
            ),
            step(
                nodes.split_prompts,
                ["chosen_prompts", "prompt_embeddings", PARAMETERS],
                ["divided_prompts", DROPPED[5]],
            ),
            step(
                nodes.plan_rewrites,
                ["divided_prompts", PARAMETERS],
                "prompt_rewrites",
                name="rewrite_prompts",
                tags=["gpu"],
            ),
            step(
                nodes.apply_rewrites,
                ["divided_prompts", "prompt_rewrites", "prompt_filter_decisions"],
                "filtered_prompts",
            ),
            step(nodes.collect_decisions, ["divided_prompts", *DROPPED], "prompt_filter_decisions"),
            step(
                filter_report,
                [
                    "prompt_filter_decisions",
                    "clean_prompts",
                    "lexically_distinct_prompts",
                    "filtered_prompts",
                    "prompt_embeddings",
                    PARAMETERS,
                ],
                "prompt_filter_report",
                name="report_filtering",
            ),
            step(plot_report, "prompt_filter_report", "prompt_filter_plot", name="plot_filtering"),
        ]
    )
