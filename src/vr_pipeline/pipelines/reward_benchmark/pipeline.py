"""reward_benchmark: rewards and preferences -> agreement, paired differences, a leaderboard and a page."""

from typing import Any

from kedro.pipeline import Pipeline

from vr_pipeline.pipelines.reward_benchmark import nodes
from vr_pipeline.pipelines.steps import step

_PARAMETERS = "params:reward_benchmark"


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Measure any rewards on any human preferences."""
    return Pipeline(
        [
            step(nodes.index_benchmark_videos, ["benchmark_clips", "benchmark_videos"], "benchmark_video_index"),
            step(
                nodes.label_benchmark_pairs,
                ["benchmark_preferences", "benchmark_video_index", _PARAMETERS],
                ["benchmark_pairs", "benchmark_left_out"],
            ),
            step(
                nodes.measure_benchmark,
                ["benchmark_videos", "benchmark_video_index", _PARAMETERS],
                "benchmark_shards",
                tags=["gpu"],
            ),
            step(
                nodes.compare_benchmark,
                ["benchmark_videos", "benchmark_video_index", "benchmark_pairs", _PARAMETERS],
                "benchmark_comparison_shards",
                tags=["gpu"],
            ),
            step(
                nodes.collect_benchmark,
                [
                    "benchmark_shards",
                    "benchmark_comparison_shards",
                    "benchmark_video_index",
                    "benchmark_pairs",
                    _PARAMETERS,
                ],
                ["benchmark_scores", "benchmark_judged_pairs"],
            ),
            step(
                nodes.measure_benchmark_agreement,
                ["benchmark_judged_pairs", "benchmark_preferences", _PARAMETERS],
                ["benchmark_figures", "benchmark_differences", "benchmark_biases"],
            ),
            step(
                nodes.report_benchmark,
                [
                    "benchmark_pairs",
                    "benchmark_left_out",
                    "benchmark_figures",
                    "benchmark_differences",
                    "benchmark_biases",
                    _PARAMETERS,
                ],
                ["benchmark_leaderboard", "benchmark_metrics", "benchmark_report"],
            ),
        ]
    )
