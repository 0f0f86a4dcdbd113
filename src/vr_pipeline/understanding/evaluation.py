"""The model before and after training on held-out questions: exact match and the judge's points."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash, normalise_prompt
from vr_pipeline.statistics.clustered import clustered_mean, paired_gain
from vr_pipeline.understanding.answering import Answerer, Question, answerer_identity, question_identity
from vr_pipeline.understanding.config import VlmDpoParameters
from vr_pipeline.understanding.judging import ResponseJudge
from vr_pipeline.understanding.media import QuestionMedia
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan

BEFORE, AFTER = "before", "after"
_FIGURES = ("exact", "drawn_exact", "points")


@dataclass(frozen=True)
class _Models:
    """The two models of a plan, loaded on demand, one at a time in memory."""

    models: Mapping[str, JudgeParameters]
    parameters: VlmDpoParameters
    loaded: dict[str, Answerer]

    def of(self, name: str) -> Answerer:
        if name not in self.loaded:
            self.loaded.clear()
            self.loaded[name] = Answerer.load(self.models[name], self.parameters.dialogue)
        return self.loaded[name]


def plan_answers(
    questions: Sequence[Question], media: QuestionMedia, trained: JudgeParameters, parameters: VlmDpoParameters
) -> WorkPlan:
    """Plan the answers of the model before and after training, one item per question and model.

    Another training does not change the answers of the model before training.

    Args:
        questions: held-out rows of the index of questions.
        media: their clips and images.
        trained: how the trained model is loaded.
        parameters: the model before training, dialogue, length, batch and number of drawn answers.

    Returns:
        a plan whose items have the likeliest ``response``, ``finished`` (whether the model ended it), and ``drawn``.
    """
    models = {BEFORE: parameters.model, AFTER: trained}
    drawing = parameters.candidates.model_dump_json(exclude={"num_candidates", "seed"})
    settings = content_hash(drawing, parameters.test.model_dump_json())
    asked: dict[str, tuple[str, Question]] = {}
    items = []
    for name, model in models.items():
        made_by = answerer_identity(model, parameters.dialogue)
        for question in questions:
            key = content_hash("answer", name, question["question_id"])
            asked[key] = (name, question)
            made_of = content_hash("answer", made_by, settings, question_identity(question))
            items.append(WorkItem(key, made_of, {"question_id": str(question["question_id"]), "model": name}))

    def make_batch(context: _Models, batch: Sequence[WorkItem]) -> list[dict[str, Any] | ItemFailure]:
        made: dict[str, dict[str, Any] | ItemFailure] = {}
        for name in models:
            of_model = [item.key for item in batch if asked[item.key][0] == name]
            if of_model:
                answers = answers_to([asked[key][1] for key in of_model], context.of(name), media, parameters)
                made |= zip(of_model, answers, strict=True)
        return [made[item.key] for item in batch]

    return WorkPlan(
        items,
        make_batch,
        batch_size=parameters.candidates.batch_size,
        description="answers to held-out questions",
        setup=lambda: _Models(models, parameters, {}),
    )


def answers_to(
    questions: Sequence[Question], answerer: Answerer, media: QuestionMedia, parameters: VlmDpoParameters
) -> list[dict[str, Any] | ItemFailure]:
    """Answer some questions in a batch, by the likeliest tokens and by drawing."""
    requests = answerer.requests(questions, media)
    asked = [one for one in requests if not isinstance(one, ItemFailure)]
    limits, test = parameters.candidates, parameters.test
    likeliest = iter(answerer.answer([one for _, one in asked], limits.max_new_tokens) if asked else [])
    drawn = iter(answerer.drawn(asked, test.samples, test.seed, limits))
    made: list[dict[str, Any] | ItemFailure] = []
    for request in requests:
        if isinstance(request, ItemFailure):
            made.append(request)
        else:
            one = next(likeliest)
            others = [text for text, _ in next(drawn)]
            made.append({"response": answerer.text(one), "finished": one.finished, "drawn": others})
    return made


def collect_answers(stored: Any, questions: Sequence[Question]) -> pd.DataFrame:
    """Return a table of all answers, one row per question that both models answered.

    Returns:
        question_id, group, prompt, answer, and per model response_<model> and drawn_<model> (a JSON list), sorted by
        question.

    Raises:
        InputError: no question has answers of both models.
    """
    records = stored.records
    answers: dict[tuple[str, str], dict[str, Any]] = {
        (str(question), str(model)): stored.load(str(key))
        for key, question, model in records[records["status"] == "ok"][["key", "question_id", "model"]].itertuples(
            index=False
        )
    }
    rows = []
    for question in questions:
        name = str(question["question_id"])
        if (name, BEFORE) in answers and (name, AFTER) in answers:
            known = {column: str(question[column]) for column in ("question_id", "group", "prompt", "answer")}
            both = {model: answers[name, model] for model in (BEFORE, AFTER)}
            likeliest = {f"response_{model}": one["response"] for model, one in both.items()}
            drawn = {f"drawn_{model}": json.dumps(one["drawn"], ensure_ascii=False) for model, one in both.items()}
            rows.append(known | likeliest | drawn)
    if not rows:
        raise InputError("no held-out question was answered", remedy="See the reasons above", field="questions")
    return pd.DataFrame(rows)


def with_figures(answers: pd.DataFrame, media: QuestionMedia, judge: ResponseJudge | None) -> pd.DataFrame:
    """Add to answers whether they are correct, and their points.

    Args:
        answers: of :func:`collect_answers`.
        media: clips and images of the questions.
        judge: gives points; None for none.

    Returns:
        the table with exact_<model> (1 if the likeliest answer is correct apart from case and white space, NaN if no
        correct answer is known), drawn_exact_<model> (the share of drawn answers that are correct) and points_<model>
        of the likeliest answer (NaN without a judge or if it is empty).
    """
    table = answers.copy()
    known = (table["answer"] != "").to_numpy()
    right = table["answer"].map(normalise_prompt)
    for model in (BEFORE, AFTER):
        responses = table[f"response_{model}"]
        same = (responses.map(normalise_prompt) == right).to_numpy(dtype=float)
        table[f"exact_{model}"] = np.where(known, same, np.nan)
        table[f"drawn_exact_{model}"] = [
            _share_right(json.loads(drawn), one) if there else np.nan
            for drawn, one, there in zip(table[f"drawn_{model}"], right, known, strict=True)
        ]
        points = np.full(len(table), np.nan)
        rows = np.flatnonzero((responses != "").to_numpy())
        if judge is not None and len(rows):
            chosen = table.iloc[rows]
            clips = [media.source(str(name)) for name in chosen["question_id"]]
            scored = judge.score_responses(clips, chosen["prompt"].tolist(), chosen[f"response_{model}"].tolist())
            points[rows] = scored["total"].to_numpy(dtype=float)
        table[f"points_{model}"] = points
    return table


def _share_right(drawn: Sequence[str], right: str) -> float:
    return float(np.mean([normalise_prompt(one) == right for one in drawn])) if drawn else math.nan


def summarised(table: pd.DataFrame) -> dict[str, Any]:
    """Return means before and after with intervals, and the paired gain; groups of questions are the sampling units.

    A figure is over the questions that have it before and after, and missing if there are none.
    """
    found: dict[str, Any] = {"questions": len(table), "groups": int(table["group"].nunique())}
    changed = table["response_before"] != table["response_after"]
    found["changed_answers"] = int(changed.sum())
    found |= {f"empty_answers_{model}": int((table[f"response_{model}"] == "").sum()) for model in (BEFORE, AFTER)}
    for name in _FIGURES:
        before, after = (table[f"{name}_{model}"].to_numpy(dtype=float) for model in (BEFORE, AFTER))
        there = np.isfinite(before) & np.isfinite(after)
        if not there.any():
            continue
        groups = table["group"].to_numpy()[there]
        found[name] = {
            BEFORE: clustered_mean(before[there], groups).to_json(),
            AFTER: clustered_mean(after[there], groups).to_json(),
            "gain": paired_gain(after[there], groups, before[there], groups).to_json(),
            "better": int((after[there] > before[there]).sum()),
            "worse": int((after[there] < before[there]).sum()),
        }
    return found
