"""The graph of prompt_filtering."""

from kedro.pipeline import Node, Pipeline

from vr_pipeline.pipelines.prompt_filtering import nodes

PARAMETERS = "params:prompt_filtering"
DROPPED = (
    "dropped_by_cleaning",
    "dropped_by_words",
    "dropped_by_meaning",
    "dropped_by_review",
    "dropped_by_choice",
    "dropped_by_split",
)


def create_pipeline(**_: object) -> Pipeline:
    """From raw_prompts to filtered_prompts, prompt_filter_decisions, prompt_filter_report and its plot."""
    return Pipeline(
        [
            Node(nodes.clean_prompts, ["raw_prompts", PARAMETERS], ["clean_prompts", DROPPED[0]], name="clean_prompts"),
            Node(
                nodes.drop_same_words,
                ["clean_prompts", PARAMETERS],
                ["lexically_distinct_prompts", DROPPED[1]],
                name="drop_same_words",
            ),
            Node(
                nodes.plan_embeddings,
                ["lexically_distinct_prompts", PARAMETERS],
                "prompt_embeddings",
                name="embed_prompts",
                tags=["gpu"],
            ),
            Node(
                nodes.drop_same_meaning,
                ["lexically_distinct_prompts", "prompt_embeddings", PARAMETERS],
                ["distinct_prompts", DROPPED[2]],
                name="drop_same_meaning",
            ),
            Node(
                nodes.plan_reviews,
                ["distinct_prompts", PARAMETERS],
                "prompt_reviews",
                name="review_prompts",
                tags=["gpu"],
            ),
            Node(
                nodes.apply_reviews,
                ["distinct_prompts", "prompt_reviews"],
                ["usable_prompts", DROPPED[3]],
                name="apply_reviews",
            ),
            Node(
                nodes.choose_prompts,
                ["usable_prompts", "prompt_embeddings", PARAMETERS],
                ["chosen_prompts", DROPPED[4]],
                name="choose_prompts",
            ),
            Node(
                nodes.split_prompts,
                ["chosen_prompts", "prompt_embeddings", PARAMETERS],
                ["divided_prompts", DROPPED[5]],
                name="split_prompts",
            ),
            Node(
                nodes.plan_rewrites,
                ["divided_prompts", PARAMETERS],
                "prompt_rewrites",
                name="rewrite_prompts",
                tags=["gpu"],
            ),
            Node(
                nodes.apply_rewrites,
                ["divided_prompts", "prompt_rewrites", "prompt_filter_decisions"],
                "filtered_prompts",
                name="apply_rewrites",
            ),
            Node(
                nodes.collect_decisions,
                ["divided_prompts", *DROPPED],
                "prompt_filter_decisions",
                name="collect_decisions",
            ),
            Node(
                nodes.report_filtering,
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
            Node(nodes.plot_filtering, "prompt_filter_report", "prompt_filter_plot", name="plot_filtering"),
        ]
    )
