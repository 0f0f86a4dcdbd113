"""Nodes of reward_benchmark."""

from typing import Any

import pandas as pd

from vr_pipeline.evaluation.benchmark.config import RewardBenchmarkParameters
from vr_pipeline.evaluation.benchmark.figures import (
    FIGURES,
    benchmark_biases,
    benchmark_differences,
    benchmark_figures,
    leaderboard,
)
from vr_pipeline.evaluation.benchmark.measured import Part, benchmark_rewards, measurement_of, score_table
from vr_pipeline.evaluation.benchmark.page import benchmark_page
from vr_pipeline.evaluation.benchmark.pairs import compared_pairs, judged_pairs, labelled_pairs
from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.video_index import index_given_clips
from vr_pipeline.rewards.comparing import collect_comparisons, plan_comparisons
from vr_pipeline.rewards.registry import ranker_of
from vr_pipeline.work import WorkPlan, joined_plan


def index_benchmark_videos(benchmark_clips: pd.DataFrame, benchmark_videos: Any) -> pd.DataFrame:
    """List the clips of all sources; those that do not decode have status 'failed' and the reason."""
    return index_given_clips(benchmark_clips, benchmark_videos, source="benchmark_preferences")


def label_benchmark_pairs(
    benchmark_preferences: pd.DataFrame, benchmark_video_index: pd.DataFrame, parameters: RewardBenchmarkParameters
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List the pairs of all sources and criteria, and those left out with the reason."""
    return labelled_pairs(benchmark_preferences, benchmark_video_index, parameters)


def measure_benchmark(
    benchmark_videos: Any, benchmark_video_index: pd.DataFrame, parameters: RewardBenchmarkParameters
) -> WorkPlan:
    """Measure every clip by every reward; rewards with the same measurement share it."""
    rewards = {measurement_of(reward): reward for reward in benchmark_rewards(parameters, compare=False).values()}
    plans = {name: reward.measure(benchmark_videos, benchmark_video_index) for name, reward in rewards.items()}
    return joined_plan(plans, "groups of clips", close=lambda name: rewards[name].close())


def compare_benchmark(
    benchmark_videos: Any,
    benchmark_video_index: pd.DataFrame,
    benchmark_pairs: pd.DataFrame,
    parameters: RewardBenchmarkParameters,
) -> WorkPlan:
    """Compare every pair in both orders with every model that compares."""
    models = benchmark_rewards(parameters, compare=True)
    pairs = compared_pairs(benchmark_pairs)
    rankers = {name: ranker_of(model) for name, model in models.items()}
    plans = {
        _part(name): plan_comparisons(ranker, benchmark_videos, benchmark_video_index, pairs)
        for name, ranker in rankers.items()
    }
    close = {_part(name): model.close for name, model in models.items()}
    return joined_plan(plans, "prompts to compare", close=lambda name: close[name]())


def collect_benchmark(
    benchmark_shards: Any,
    benchmark_comparison_shards: Any,
    benchmark_video_index: pd.DataFrame,
    benchmark_pairs: pd.DataFrame,
    parameters: RewardBenchmarkParameters,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Collect the scores of all clips, and the judgement of every reward on every pair."""
    scores = score_table(benchmark_rewards(parameters, compare=False), benchmark_shards, benchmark_video_index)
    comparisons = {
        name: collect_comparisons(Part(benchmark_comparison_shards, _part(name)), benchmark_video_index)
        for name in benchmark_rewards(parameters, compare=True)
    }
    return scores, judged_pairs(benchmark_pairs, scores, comparisons, parameters)


def measure_benchmark_agreement(
    benchmark_judged_pairs: pd.DataFrame,
    benchmark_preferences: pd.DataFrame,
    parameters: RewardBenchmarkParameters,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Measure agreement with people, paired differences between rewards, and biases."""
    figures = benchmark_figures(benchmark_judged_pairs, parameters)
    differences = benchmark_differences(benchmark_judged_pairs, figures)
    return figures, differences, benchmark_biases(benchmark_judged_pairs, benchmark_preferences)


def report_benchmark(
    benchmark_pairs: pd.DataFrame,
    benchmark_left_out: pd.DataFrame,
    benchmark_figures: pd.DataFrame,
    benchmark_differences: pd.DataFrame,
    benchmark_biases: pd.DataFrame,
    parameters: RewardBenchmarkParameters,
) -> tuple[list[dict[str, Any]], dict[str, Any], str]:
    """Write the rows of a leaderboard, the figures as one document, and the page."""
    described = _described(parameters)
    report = {"sources": _sources(benchmark_pairs, benchmark_left_out), "rewards": described}
    rows = leaderboard(benchmark_figures, described)
    page = benchmark_page(parameters.title, benchmark_figures, benchmark_differences, benchmark_biases, report)
    return rows, {**report, "figures": _nested(rows)}, page


def _part(name: str) -> str:
    """Return a key for a name with arbitrary characters."""
    return content_hash("benchmark comparison", name)


def _described(parameters: RewardBenchmarkParameters) -> dict[str, dict[str, Any]]:
    described: dict[str, dict[str, Any]] = {}
    for compare in (False, True):
        for name, reward in benchmark_rewards(parameters, compare=compare).items():
            described[name] = {
                "type": type(reward).__name__,
                "identity": reward.identity,
                "dimensions": list(reward.dimensions),
                "compares": compare,
                **{key: str(value) for key, value in reward.recorded.items()},
            }
    baselines = {name: one.baseline for name, one in parameters.rewards.items() if one.baseline is not None}
    return described | {name: {"type": baseline} for name, baseline in baselines.items()}


def _sources(pairs: pd.DataFrame, left_out: pd.DataFrame) -> dict[str, dict[str, int]]:
    overall = pairs[pairs["criterion"] == "preference"]
    return {
        str(source): {
            "pairs": len(own),
            "validation": int((own["split"] == "validation").sum()),
            "test": int((own["split"] == "test").sum()),
            "left_out": int((left_out["source"] == source).sum()),
        }
        for source, own in overall.groupby("source", sort=True)
    }


def _nested(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return source -> reward -> criterion -> figure, for MLflow's metrics."""
    nested: dict[str, Any] = {}
    for row in rows:
        place = nested.setdefault(row["source"], {}).setdefault(row["reward"], {})
        known = {name: row[name]["value"] for name in FIGURES if row[name]["value"] is not None}
        place[row["criterion"]] = {**known, "n": row["n"]}
    return nested
