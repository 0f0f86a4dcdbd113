"""vlm_dpo: questions -> candidate responses -> judgements -> pairs -> DPO -> answers before and after."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.steps import step
from vr_pipeline.pipelines.vlm_dpo import nodes
from vr_pipeline.understanding.plots import vlm_dpo_figure

_ALL = "params:vlm_dpo"


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Lead from questions about clips to a model trained on its responses, and its test.

    For existing pairs, set ``response_pairs`` to a file in the catalog and start the run at ``train_vlm``.
    """
    return Pipeline(
        [
            step(nodes.index_questions, ["understanding_questions", "understanding_media", _ALL], "question_index"),
            step(
                nodes.sample_responses,
                ["question_index", "understanding_media", _ALL],
                "response_candidates",
                tags=["gpu"],
            ),
            step(
                nodes.judge_responses,
                ["response_candidates", "question_index", "understanding_media", _ALL],
                "response_judgements",
                tags=["gpu"],
            ),
            step(
                nodes.select_response_pairs,
                ["response_candidates", "response_judgements", "question_index", _ALL],
                ["response_pairs", "response_pair_figures"],
            ),
            step(
                nodes.train_vlm,
                ["response_pairs", "question_index", "understanding_media", _ALL],
                ["trained_vlm", "vlm_dpo_training_log", "vlm_dpo_training_metrics"],
                tags=["gpu", "train"],
            ),
            step(
                nodes.answer_held_out,
                ["trained_vlm", "question_index", "understanding_media", _ALL],
                "vlm_answer_shards",
                tags=["gpu"],
            ),
            step(
                nodes.evaluate_vlm,
                ["vlm_answer_shards", "question_index", "understanding_media", _ALL],
                ["vlm_answers", "vlm_dpo_metrics"],
                tags=["gpu"],
            ),
            step(
                vlm_dpo_figure,
                ["vlm_dpo_metrics", "vlm_dpo_training_log"],
                "vlm_dpo_figure",
                name="draw_vlm_dpo_report",
            ),
        ]
    )
