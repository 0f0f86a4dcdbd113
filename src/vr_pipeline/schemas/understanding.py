"""Tables of vlm_dpo: questions, responses and answers of vision-language models."""

import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.table import Table, share


class Questions(Table):
    """Questions about clips or images, one row each."""

    question_id: Series[str] = pa.Field(unique=True, str_length={"min_value": 1})
    group: Series[str] = pa.Field(description="a group is on one side of the split")
    prompt: Series[str] = pa.Field(str_length={"min_value": 1}, description="the question")
    answer: Series[str] = pa.Field(description="a correct answer; empty if unknown")
    files: Series[str] = pa.Field(description="JSON list of the shown files: one, or the frames of a clip")


class QuestionIndex(Table):
    """Questions with the state of their files; a question with unreadable files has status 'failed'."""

    question_id: Series[str]
    group: Series[str]
    prompt: Series[str]
    files: Series[str]
    sha256: Series[str] = pa.Field(description="of all shown files")
    status: Series[str] = pa.Field(isin=["ok", "failed"])
    error: Series[str]
    split: Series[str] = pa.Field(isin=["train", "validation", "test"])


class ResponsePairs(Table):
    """Pairs of responses for training a vision-language model, one row each."""

    pair_id: Series[str] = pa.Field(unique=True)
    question_id: Series[str]
    group: Series[str]
    prompt: Series[str]
    files: Series[str]
    chosen: Series[str] = pa.Field(str_length={"min_value": 1})
    rejected: Series[str] = pa.Field(str_length={"min_value": 1})
    chosen_score: Series[float] = pa.Field(nullable=True, description="points of the judge; missing if unknown")
    rejected_score: Series[float] = pa.Field(nullable=True)


class VlmAnswers(Table):
    """Answers to held-out questions before and after training, one row per question."""

    question_id: Series[str] = pa.Field(unique=True)
    group: Series[str]
    prompt: Series[str]
    answer: Series[str]
    response_before: Series[str]
    response_after: Series[str]
    exact_before: Series[float] = share("1 if the likeliest response is correct apart from case and white space")
    exact_after: Series[float] = share("the same after training")
    drawn_before: Series[str] = pa.Field(description="JSON list of drawn responses")
    drawn_after: Series[str]
    drawn_exact_before: Series[float] = share("share of the drawn responses that are correct")
    drawn_exact_after: Series[float] = share("the same after training")
    points_before: Series[float] = pa.Field(nullable=True, description="points of the judge")
    points_after: Series[float] = pa.Field(nullable=True)
