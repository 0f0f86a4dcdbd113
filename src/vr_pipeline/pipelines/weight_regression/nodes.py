"""Nodes of weight_regression."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.drawing import Figure
from vr_pipeline.errors import InputError
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.preferences.labels import (
    aggregate_annotators,
    annotator_agreement,
    check_preferences,
    split_by_prompt,
    usable_pairs,
)
from vr_pipeline.preferences.overlaps import overlapping_prompts, without_overlaps
from vr_pipeline.preferences.ratings import bradley_terry, win_rates
from vr_pipeline.preferences.sources import by_source, with_sources
from vr_pipeline.rewards import plots
from vr_pipeline.rewards.checklist.curves import accuracy_curve
from vr_pipeline.rewards.checklist.deviations import sub_dimension_deviations
from vr_pipeline.rewards.checklist.fit import fit_pairs
from vr_pipeline.rewards.checklist.halves import OTHER_HALF, question_halves, with_left_out
from vr_pipeline.rewards.checklist.linear import dimension_scores, encoded_answers, score
from vr_pipeline.rewards.checklist.linearity import linearity
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.tables import answers_matrix, probability_questions, weighted_questions
from vr_pipeline.rewards.checklist.weights import AnswerKind, RewardWeights, given_weights
from vr_pipeline.rewards.config import WeightRegressionParameters
from vr_pipeline.schemas.parts import TableParts
from vr_pipeline.statistics.clustered import linked_prompts
from vr_pipeline.statistics.correlation import held_out_agreement
from vr_pipeline.statistics.labels import FloatArray
from vr_pipeline.vlm.config import ChecklistJudgeParameters

logger = logging.getLogger(__name__)


def label_pairs(
    preferences: pd.DataFrame,
    video_index: pd.DataFrame,
    filtered_prompts: pd.DataFrame,
    parameters: WeightRegressionParameters,
) -> tuple[pd.DataFrame, dict[str, Any], pd.DataFrame]:
    """Return one row per compared pair with label, votes and split; a report; and prompts also used for training."""
    check_preferences(preferences, video_index)
    pairs, unusable = usable_pairs(aggregate_annotators(preferences), video_index)
    if not len(pairs):
        raise InputError(
            f"none of the {len(preferences)} preferences is about two clips that could be read",
            remedy="see the column 'error' of preference_video_index and replace those clips",
            field="preference",
        )
    if len(unusable):
        logger.warning("%d pairs left out because a clip could not be read", len(unusable))
    units = pd.Series(_units(pairs), index=pairs.index)
    # If shared clips link all prompts, split by prompt alone.
    units = units if units.nunique() > 1 else pairs["prompt_id"]
    pairs["split"] = split_by_prompt(units, parameters.held_out_share, parameters.seed)
    pairs = with_sources(pairs, preferences)
    if parameters.overlaps == "remove":
        pairs["split"] = without_overlaps(pairs, filtered_prompts, parameters.near_duplicate)
        removed = pairs["split"] == "overlap"
        logger.info(
            "%d of %d pairs on %d prompts are left out of the fit: policies are validated or compared on these prompts",
            removed.sum(),
            len(pairs),
            pairs.loc[removed, "prompt_id"].nunique(),
        )
    overlaps = overlapping_prompts(pairs, filtered_prompts, parameters.near_duplicate)
    report: dict[str, Any] = {
        "generators": _ratings(pairs, video_index, parameters),
        "annotators": annotator_agreement(preferences),
        "preferences": {label: int((pairs["preference"] == label).sum()) for label in ("a", "b", "tie")},
        "splits": {
            name: {"pairs": len(part), "prompts": int(part["prompt_id"].nunique())}
            for name, part in pairs.groupby("split")
        },
        "left_out": {"pairs": len(unusable), "examples": unusable.head(20).to_dict(orient="records")},
    }
    if rates := _win_rates(pairs, video_index):
        report["generator_pairs"] = rates
    report["sources"] = {
        str(name): {"pairs": len(own), "weight": float(own["weight"].iloc[0])}
        for name, own in pairs.groupby("source", sort=True)
    }
    return pairs, report, overlaps


def fit_reward_weights(
    pairs: pd.DataFrame,
    answers: pd.DataFrame,
    checklist: Checklist,
    parameters: WeightRegressionParameters,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Fit weights on the pairs of split 'fit', or take the given ones; also return the removed questions, in order.

    With ``questions: half`` the document also has the weights of the other half, fitted on the same pairs.
    """
    if parameters.given is not None:
        fitted = [given_weights(parameters.given, checklist, encoding=parameters.encoding, answers=parameters.answers)]
    else:
        halves = question_halves(checklist) if parameters.questions == "half" else (None,)
        fitted = [
            _fit(pairs, answers, checklist, parameters, parameters.answers, parameters.bootstrap_samples, questions)
            for questions in halves
        ]
    for name, weights in zip(("weights", "weights of the other half"), fitted, strict=False):
        for warning in weights.statistics["warnings"]:
            logger.warning("%s: %s", name, warning)
    removals = pd.DataFrame(list(fitted[0].removals), columns=["step", "question_id", "weight", "reason"])
    other = {OTHER_HALF: fitted[1].to_json()} if len(fitted) > 1 else {}
    return fitted[0].to_json() | other, removals


def measure_agreement(
    pairs: pd.DataFrame,
    answers: pd.DataFrame,
    checklist: Checklist,
    weights: dict[str, Any],
    parameters: WeightRegressionParameters,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Measure agreement with people on held-out prompts; also return the reward difference of every pair."""
    reward = RewardWeights.from_json(weights)
    pairs = pairs[pairs["split"] != "overlap"]
    answers_a, answers_b = _answers(pairs, answers, checklist, reward.question_ids, reward.answers)
    columns = ["pair_id", "prompt_id", "video_id_a", "video_id_b", "preference", "split", "source"]
    scores = pairs[columns].assign(difference=score(answers_a, reward) - score(answers_b, reward))
    agreement = held_out_agreement(scores, samples=parameters.bootstrap_samples, seed=parameters.seed)
    agreement["by_source"] = by_source(scores)
    agreement["linearity"] = linearity(
        (encoded_answers(answers_a, reward), encoded_answers(answers_b, reward)),
        (
            dimension_scores(answers_a, reward, checklist).to_numpy(),
            dimension_scores(answers_b, reward, checklist).to_numpy(),
        ),
        pairs,
        _units(pairs),
    )
    tau, diff = ("none" if agreement[name] is None else f"{agreement[name]:.3f}" for name in ("tau", "diff"))
    logger.info("agreement on %d held-out pairs: tau %s, diff %s", agreement["n"], tau, diff)
    return agreement, scores


def trace_accuracy_curve(
    pairs: pd.DataFrame,
    answers: pd.DataFrame,
    checklist: Checklist,
    parameters: WeightRegressionParameters,
) -> pd.DataFrame:
    """Measure held-out accuracy by number of questions, kind of weights and kind of answers."""
    fitted, tested = pairs[pairs["split"] == "fit"], pairs[pairs["split"] == "held_out"]
    parts = []
    kinds: tuple[AnswerKind, AnswerKind] = ("probability", "binary")
    for kind in kinds:
        weights = _fit(pairs, answers, checklist, parameters, kind, 0)
        fit_a, fit_b = _answers(fitted, answers, checklist, weights.question_ids, kind)
        held_out_a, held_out_b = _answers(tested, answers, checklist, weights.question_ids, kind)
        curve = accuracy_curve(
            fit_a,
            fit_b,
            list(fitted["preference"]),
            held_out_a,
            held_out_b,
            list(tested["preference"]),
            list(tested["prompt_id"]),
            weights,
        )
        parts.append(curve.assign(answers=kind))
    return pd.concat(parts, ignore_index=True)


def measure_preference_deviations(pairs: pd.DataFrame, answers: pd.DataFrame, checklist: Checklist) -> pd.DataFrame:
    """Measure the lead of preferred clips in each sub-dimension, over all pairs without ties."""
    decided = pairs[pairs["preference"] != "tie"]
    answers_a, answers_b = _answers(decided, answers, checklist, checklist.question_ids, "binary")
    a_preferred = (decided["preference"] == "a").to_numpy()[:, None]
    return sub_dimension_deviations(
        np.where(a_preferred, answers_a, answers_b),
        np.where(a_preferred, answers_b, answers_a),
        checklist.question_ids,
        checklist,
        list(decided["prompt_id"]),
    )


def package_reward_model(
    weights: dict[str, Any],
    checklist: Checklist,
    judge: ChecklistJudgeParameters,
    checklist_inference: ChecklistInferenceParameters,
) -> ChecklistReward:
    """Return the reward with a reference to its judge, as a model that MLflow loads and serves."""
    return ChecklistReward(checklist, RewardWeights.from_json(weights), judge, checklist_inference)


def score_videos(
    answers: pd.DataFrame | TableParts, video_index: pd.DataFrame, checklist: Checklist, weights: dict[str, Any]
) -> pd.DataFrame:
    """Compute the rewards of an index's clips: total and by dimension."""
    return ChecklistReward(checklist, RewardWeights.from_json(weights)).rewards(answers, video_index)


def draw_weight_plots(
    weights: dict[str, Any],
    checklist: Checklist,
    scores: pd.DataFrame,
    curve: pd.DataFrame,
    answers: pd.DataFrame,
    deviations: pd.DataFrame,
) -> tuple[Figure, Figure, Figure, Figure, Figure]:
    """Draw weights, calibration on held-out pairs, accuracy curve, question correlation, sub-dimension deviations."""
    reward = RewardWeights.from_json(weights)
    held_out = scores[(scores["split"] == "held_out") & (scores["preference"] != "tie")]
    matrix = answers_matrix(answers, sorted(set(answers["video_id"])), checklist.question_ids)
    return (
        plots.weights_by_dimension(reward, checklist),
        plots.preference_calibration(
            held_out["difference"], list(held_out["preference"]), prompts=list(held_out["prompt_id"])
        ),
        plots.accuracy_by_questions(curve),
        plots.question_correlation(matrix, checklist),
        plots.deviations_by_sub_dimension({"preferred minus other": deviations}),
    )


def _ratings(
    pairs: pd.DataFrame, video_index: pd.DataFrame, parameters: WeightRegressionParameters
) -> list[dict[str, Any]]:
    """Return people's Bradley-Terry ratings of the compared generators; empty for a single generator."""
    first, second = _generators(pairs, video_index)
    if (first == second).all():
        return []
    table = bradley_terry(
        list(first),
        list(second),
        list(pairs["preference"]),
        _units(pairs),
        samples=parameters.bootstrap_samples,
        seed=parameters.seed,
    )
    return [
        {str(name): None if value != value else value for name, value in row.items()}  # NaN is not JSON
        for row in table.to_dict(orient="records")
    ]


def _win_rates(pairs: pd.DataFrame, video_index: pd.DataFrame) -> list[dict[str, Any]]:
    """Return how often people preferred each generator to each other; empty for a single generator."""
    first, second = _generators(pairs, video_index)
    return win_rates(list(first), list(second), list(pairs["preference"]), _units(pairs))


def _generators(pairs: pd.DataFrame, video_index: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the generators of the first and the second clip of each pair."""
    generator = video_index["generator"].set_axis(video_index["video_id"])
    return pairs["video_id_a"].map(generator), pairs["video_id_b"].map(generator)


def _units(pairs: pd.DataFrame) -> list[str]:
    """Return the resampling unit of each pair: its prompt; prompts that share a clip form one unit."""
    columns = (pairs[name].to_numpy() for name in ("prompt_id", "video_id_a", "video_id_b"))
    return linked_prompts(*columns).tolist()


def _fit(
    pairs: pd.DataFrame,
    answers: pd.DataFrame,
    checklist: Checklist,
    parameters: WeightRegressionParameters,
    kind: AnswerKind,
    bootstrap_samples: int,
    questions: Sequence[str] | None = None,
) -> RewardWeights:
    fitted = pairs[pairs["split"] == "fit"]
    every = weighted_questions(checklist)
    questions = every if questions is None else questions
    answers_a, answers_b = _answers(fitted, answers, checklist, questions, kind)
    weights = fit_pairs(
        answers_a,
        answers_b,
        list(fitted["preference"]),
        parameters.model_copy(update={"answers": kind, "bootstrap_samples": bootstrap_samples}),
        groups=_units(fitted),
        votes=fitted[["share_a", "share_b"]].to_numpy() if parameters.labels == "soft" else None,
        sample_weight=fitted["weight"].to_numpy(),
        question_ids=questions,
    )
    return replace(with_left_out(weights, tuple(every)), checklist_hash=checklist.hash)


def _answers(
    pairs: pd.DataFrame, answers: pd.DataFrame, checklist: Checklist, questions: Any, kind: AnswerKind
) -> tuple[FloatArray, FloatArray]:
    """Return the answers about the first and the second clip of each pair, arrays [pairs, questions]."""
    clips = sorted({*pairs["video_id_a"], *pairs["video_id_b"]})
    matrix = answers_matrix(
        answers, clips, list(questions), kind=kind, always_probability=probability_questions(checklist)
    )
    row = pd.Index(clips)
    return matrix[row.get_indexer(pairs["video_id_a"])], matrix[row.get_indexer(pairs["video_id_b"])]
