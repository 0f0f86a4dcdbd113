"""Answers that a test gives, on the way that a judge's answers take."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from vr_pipeline.checklist import Checklist
from vr_pipeline.judges.answers import answer_table
from vr_pipeline.rewards.checklist.linear import score
from vr_pipeline.rewards.checklist.tables import answers_matrix, probability_questions
from vr_pipeline.rewards.checklist.weights import RewardWeights


def given_answers(answers: Mapping[str, bool | float], checklist: Checklist) -> pd.DataFrame:
    """The table of one clip's answers, gates applied; a number is a probability of yes."""
    rows = pd.DataFrame({"question_id": list(answers), "p_yes": [float(answer) for answer in answers.values()]})
    rows = rows.assign(video_id="clip", outside_mass=0.0, frames_judged=1, sampling="")
    return answer_table(rows, pd.DataFrame({"video_id": ["clip"]}), checklist)


def public_score(answers: Mapping[str, bool | float], checklist: Checklist, weights: RewardWeights) -> float:
    """The score that VisionReward publishes: the mean of what the total sums."""
    ids = weights.question_ids
    always = probability_questions(checklist)
    table = given_answers(answers, checklist)
    matrix = answers_matrix(table, ["clip"], ids, kind=weights.answers, always_probability=always)
    return float(score(matrix, weights)[0]) / len(ids)
