"""Comparisons and points of candidate responses, stored per question."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.pairs.schedule import scheduled_pairs
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.rewards.registry import ranker_of
from vr_pipeline.understanding.answering import Question, question_identity
from vr_pipeline.understanding.config import JudgingParameters
from vr_pipeline.understanding.media import QuestionMedia
from vr_pipeline.video.clip import Frames, VideoReadError
from vr_pipeline.video.sampled import Sampling
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan

Shown = Path | Frames
"""The clip of a question: a file, or frames in memory."""

COMPARISON_COLUMNS = ("p_a", "p_b", "p_tie", "position_bias", "outside_mass", "better")


class ResponseJudge(Protocol):
    """Compares and scores responses about a clip."""

    @property
    def identity(self) -> str:
        """Hash of all that its judgements depend on."""
        ...

    def compare_responses(
        self,
        clips: Sequence[Shown],
        prompts: Sequence[str],
        responses_a: Sequence[str],
        responses_b: Sequence[str],
    ) -> pd.DataFrame:
        """Return :data:`COMPARISON_COLUMNS`, one row per pair; ``better`` is 'a', 'b' or 'tie'."""
        ...

    def score_responses(self, clips: Sequence[Shown], prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        """Return the column ``total``, one row per response; higher is better."""
        ...


class RewardJudge:
    """A reward of type 'unifiedreward' as a judge of responses.

    Args:
        parameters: the reward.

    Raises:
        InputError: the reward cannot judge responses.
    """

    def __init__(self, parameters: RewardModelParameters) -> None:
        self.reward: Any = parameters.model()
        if not hasattr(self.reward, "score_responses"):
            raise InputError(
                f"a reward of type '{parameters.type}' judges clips, not responses about them",
                remedy="Use a reward of type 'unifiedreward' whose template has an understanding task",
                field="vlm_dpo.reward_model.type",
            )
        self.ranker: Any = ranker_of(self.reward)

    @property
    def identity(self) -> str:
        """Hash of all that its judgements depend on."""
        return content_hash("judge of responses", self.reward.identity, self.ranker.identity)

    def compare_responses(
        self,
        clips: Sequence[Shown],
        prompts: Sequence[str],
        responses_a: Sequence[str],
        responses_b: Sequence[str],
    ) -> pd.DataFrame:
        table: pd.DataFrame = self.ranker.compare_responses(
            clips, prompts, responses_a, responses_b, fps=self._rate(clips)
        )
        return table

    def score_responses(self, clips: Sequence[Shown], prompts: Sequence[str], responses: Sequence[str]) -> pd.DataFrame:
        table: pd.DataFrame = self.reward.score_responses(clips, prompts, responses, fps=self._rate(clips))
        return table

    def _rate(self, clips: Sequence[Shown]) -> float | None:
        """Return the rate for frames in memory that uses all of them: that of the sampling."""
        if all(isinstance(clip, str | Path) for clip in clips):
            return None
        sampling: Sampling | None = self.ranker.sampling()
        return sampling.frames_per_second if sampling is not None else None


def plan_judgements(
    questions: Sequence[Question],
    candidates: pd.DataFrame,
    media: QuestionMedia,
    judge: ResponseJudge,
    parameters: JudgingParameters,
) -> WorkPlan:
    """Plan comparisons and points of candidates, one item per question; stored ones are not judged again.

    Args:
        questions: rows of the index of questions.
        candidates: of :func:`~vr_pipeline.understanding.candidates.collect_candidates`.
        media: clips and images of the questions.
        judge: compares and scores responses.
        parameters: which candidates are compared.

    Returns:
        a plan whose items have ``comparisons`` (candidates a and b, and :data:`COMPARISON_COLUMNS`) and ``points``
        (item and total).
    """
    identity, ranking = judge.identity, parameters.ranking.model_dump_json()
    by_question = {str(name): table for name, table in candidates.groupby("question_id", sort=True)}
    groups: dict[str, tuple[Question, pd.DataFrame]] = {}
    items = []
    for question in questions:
        of_question = by_question.get(str(question["question_id"]))
        if of_question is None:
            continue
        key = content_hash("judgements", question["question_id"])
        groups[key] = (question, of_question)
        responses = [str(text) for text in of_question["response"]]
        made_of = content_hash("judgements", identity, ranking, question_identity(question), *responses)
        items.append(WorkItem(key, made_of, {"question_id": str(question["question_id"]), "responses": len(responses)}))

    def make_batch(_: None, batch: Sequence[WorkItem]) -> list[dict[str, Any] | ItemFailure]:
        made: list[dict[str, Any] | ItemFailure] = []
        for item in batch:
            question, of_question = groups[item.key]
            try:
                clip = media.source(str(question["question_id"]))
                made.append(judged(judge, clip, str(question["prompt"]), of_question, parameters))
            except (VideoReadError, InputError) as error:
                made.append(ItemFailure(str(error)))
        return made

    return WorkPlan(items, make_batch, description="questions to judge")


def judged(
    judge: ResponseJudge, clip: Shown, prompt: str, candidates: pd.DataFrame, parameters: JudgingParameters
) -> dict[str, Any]:
    """Compare and score the candidates of one question.

    Raises:
        InputError: the judge gives NaN or infinity.
    """
    response = {str(name): str(text) for name, text in candidates[["candidate_id", "response"]].itertuples(index=False)}
    names = list(response)
    listed = pd.DataFrame(
        {"video_id": names, "prompt_id": "question", "sample_index": range(len(names)), "status": "ok"}
    )
    pairs = scheduled_pairs(listed, parameters.ranking, None)
    a, b = (pairs[side].astype(str).tolist() for side in ("video_id_a", "video_id_b"))
    comparisons: list[dict[str, Any]] = []
    if a:
        compared = judge.compare_responses(
            [clip] * len(a), [prompt] * len(a), [response[name] for name in a], [response[name] for name in b]
        )
        comparisons = [
            {"a": first, "b": second, **_plain(row)}
            for first, second, row in zip(a, b, compared[list(COMPARISON_COLUMNS)].to_dict("records"), strict=True)
        ]
    points = judge.score_responses([clip] * len(names), [prompt] * len(names), list(response.values()))
    totals = [_plain({"total": total})["total"] for total in points["total"]]
    return {
        "comparisons": comparisons,
        "points": [{"item": name, "total": total} for name, total in zip(names, totals, strict=True)],
    }


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        found[str(name)] = str(value) if name == "better" else float(value)
        if name != "better" and not math.isfinite(float(value)):
            raise InputError(
                f"the judge gives {value} for '{name}'",
                remedy="Load it in float32 or bfloat16 (dtype)",
                field="vlm_dpo.reward_model",
            )
    return found


def collect_judgements(stored: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all judgements as two tables.

    Returns:
        comparisons (group, a, b, :data:`COMPARISON_COLUMNS`) and points (group, item, total); a group is a question.
    """
    records = stored.records
    good = records[records["status"] == "ok"].sort_values("question_id", kind="stable")
    comparisons: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for key, question in good[["key", "question_id"]].itertuples(index=False):
        content = stored.load(str(key))
        comparisons += [{"group": str(question), **row} for row in content["comparisons"]]
        points += [{"group": str(question), **row} for row in content["points"]]
    return (
        pd.DataFrame(comparisons, columns=["group", "a", "b", *COMPARISON_COLUMNS]),
        pd.DataFrame(points, columns=["group", "item", "total"]),
    )
