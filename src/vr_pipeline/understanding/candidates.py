"""Candidate responses of the model, stored per question."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.understanding.answering import Answerer, Question, answerer_identity, question_identity
from vr_pipeline.understanding.config import CandidateParameters
from vr_pipeline.understanding.dialogue import DialogueParameters
from vr_pipeline.understanding.media import QuestionMedia
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan

_VERSION = "1"
"""Changed when the same parameters give other responses."""


def plan_candidates(
    questions: Sequence[Question],
    media: QuestionMedia,
    model: JudgeParameters,
    dialogue: DialogueParameters,
    parameters: CandidateParameters,
) -> WorkPlan:
    """Plan the candidates, one item per question; stored ones are not sampled again.

    Args:
        questions: rows of the index of questions.
        media: their clips and images.
        model: samples the responses.
        dialogue: the text around a question.
        parameters: number, temperature, length and seed.

    Returns:
        a plan whose items have the distinct ``responses`` in order: ``response``, ``count`` (its number) and
        ``finished`` (whether the model ended it each time).
    """
    made_by = answerer_identity(model, dialogue)
    settings = parameters.model_dump_json()
    by_key = {content_hash("candidates", question["question_id"]): question for question in questions}
    items = [
        WorkItem(
            key,
            content_hash("candidates", _VERSION, made_by, settings, question_identity(question)),
            {"question_id": str(question["question_id"])},
        )
        for key, question in by_key.items()
    ]

    def make_batch(answerer: Answerer, batch: Sequence[WorkItem]) -> list[dict[str, Any] | ItemFailure]:
        return sample_responses(answerer, [by_key[item.key] for item in batch], media, parameters)

    return WorkPlan(
        items,
        make_batch,
        batch_size=parameters.batch_size,
        description="questions to answer",
        setup=lambda: Answerer.load(model, dialogue),
    )


def sample_responses(
    answerer: Answerer, questions: Sequence[Question], media: QuestionMedia, parameters: CandidateParameters
) -> list[dict[str, Any] | ItemFailure]:
    """Sample the candidates of some questions in a batch."""
    requests = answerer.requests(questions, media)
    asked = [one for one in requests if not isinstance(one, ItemFailure)]
    drawn = iter(answerer.drawn(asked, parameters.num_candidates, parameters.seed, parameters))
    return [one if isinstance(one, ItemFailure) else {"responses": merged(next(drawn))} for one in requests]


def merged(responses: Sequence[tuple[str, bool]]) -> list[dict[str, Any]]:
    """Merge equal pairs of a response and whether it is finished; drop empty responses."""
    found: dict[str, dict[str, Any]] = {}
    for text, finished in responses:
        if not text:
            continue
        one = found.setdefault(text, {"response": text, "count": 0, "finished": True})
        one["count"] += 1
        one["finished"] &= finished
    return list(found.values())


def collect_candidates(stored: Any) -> pd.DataFrame:
    """Return a table of all candidates: question_id, candidate_id, response, count and finished.

    Raises:
        InputError: there are no responses.
    """
    rows = [
        {"question_id": str(question), "candidate_id": f"{question}/{number}", **response}
        for key, question in _questions_of(stored)
        for number, response in enumerate(stored.load(key)["responses"])
    ]
    if not rows:
        raise InputError(
            "all responses of the model are empty",
            remedy="Check that dialogue.text and dialogue.end are those of the model's training",
            field="vlm_dpo.dialogue",
        )
    return pd.DataFrame(rows)


def _questions_of(stored: Any) -> list[tuple[str, str]]:
    records = stored.records
    good = records[records["status"] == "ok"].sort_values("question_id", kind="stable")
    return [(str(key), str(name)) for key, name in good[["key", "question_id"]].itertuples(index=False)]
