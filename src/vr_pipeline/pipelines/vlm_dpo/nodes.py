"""Nodes of vlm_dpo."""

from typing import Any

import pandas as pd

from vr_pipeline.runtime.live_curves import write_row
from vr_pipeline.understanding.candidates import collect_candidates, plan_candidates
from vr_pipeline.understanding.config import VlmDpoParameters
from vr_pipeline.understanding.evaluation import collect_answers, plan_answers, summarised, with_figures
from vr_pipeline.understanding.judging import RewardJudge, collect_judgements, plan_judgements
from vr_pipeline.understanding.media import QuestionMedia, questions_of
from vr_pipeline.understanding.policy import TrainedVlm, trained_model
from vr_pipeline.work import WorkPlan


def index_questions(
    understanding_questions: pd.DataFrame, understanding_media: Any, parameters: VlmDpoParameters
) -> pd.DataFrame:
    """List the questions with split and hash of their clip or image; unreadable ones are set aside."""
    from vr_pipeline.understanding.media import index_questions

    return index_questions(understanding_questions, understanding_media, parameters.split)


def sample_responses(question_index: pd.DataFrame, understanding_media: Any, parameters: VlmDpoParameters) -> WorkPlan:
    """Sample several responses to every training and validation question, each from its own seed."""
    return plan_candidates(
        questions_of(question_index, "train", "validation"),
        QuestionMedia(understanding_media, question_index),
        parameters.model,
        parameters.dialogue,
        parameters.candidates,
    )


def judge_responses(
    response_candidates: Any, question_index: pd.DataFrame, understanding_media: Any, parameters: VlmDpoParameters
) -> WorkPlan:
    """Compare the responses to every question, and score each."""
    return plan_judgements(
        questions_of(question_index, "train", "validation"),
        collect_candidates(response_candidates),
        QuestionMedia(understanding_media, question_index),
        RewardJudge(parameters.reward_model),
        parameters.judging,
    )


def select_response_pairs(
    response_candidates: Any, response_judgements: Any, question_index: pd.DataFrame, parameters: VlmDpoParameters
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Select a pair of responses for every question by sifting, and count the outcomes."""
    from vr_pipeline.understanding.selection import select_response_pairs

    return select_response_pairs(
        question_index,
        collect_candidates(response_candidates),
        *collect_judgements(response_judgements),
        parameters.judging,
    )


def train_vlm(
    response_pairs: pd.DataFrame, question_index: pd.DataFrame, understanding_media: Any, parameters: VlmDpoParameters
) -> tuple[TrainedVlm, pd.DataFrame, dict[str, Any]]:
    """Train the model by DPO on the pairs; keep the best checkpoint on validation pairs."""
    from vr_pipeline.understanding.task import train_vlm

    trained = train_vlm(response_pairs, question_index, understanding_media, parameters, observe=write_row)
    return trained, trained.log, trained.summary


def answer_held_out(
    trained_vlm: str, question_index: pd.DataFrame, understanding_media: Any, parameters: VlmDpoParameters
) -> WorkPlan:
    """Answer every held-out question with the model before and after training."""
    from pathlib import Path

    return plan_answers(
        held_out(question_index, parameters),
        QuestionMedia(understanding_media, question_index),
        trained_model(parameters.model, Path(trained_vlm)),
        parameters,
    )


def evaluate_vlm(
    vlm_answer_shards: Any, question_index: pd.DataFrame, understanding_media: Any, parameters: VlmDpoParameters
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compare the answers before and after training: exact match and scores, with paired intervals."""
    answers = collect_answers(vlm_answer_shards, held_out(question_index, parameters))
    judge = RewardJudge(parameters.reward_model) if parameters.reward_model.given is not None else None
    table = with_figures(answers, QuestionMedia(understanding_media, question_index), judge)
    return table, summarised(table)


def held_out(question_index: pd.DataFrame, parameters: VlmDpoParameters) -> list[dict[str, Any]]:
    """Return the test questions; those of validation without a test split."""
    return questions_of(question_index, "test" if parameters.split.test_share else "validation")
