"""Questions, responses and answers of vision-language models that are trained on responses."""

import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.table import Table, share


class Questions(Table):
    """Questions about clips or images, one row each."""

    question_id: Series[str] = pa.Field(unique=True, str_length={"min_value": 1})
    group: Series[str] = pa.Field(description="questions of one group stay on one side of the split")
    prompt: Series[str] = pa.Field(str_length={"min_value": 1}, description="the question")
    answer: Series[str] = pa.Field(description="a right answer; empty where none is known")
    files: Series[str] = pa.Field(description="JSON list of the files that are shown: one, or the frames of a clip")


class QuestionIndex(Table):
    """The same, with what was found of their files; a question whose files cannot be read has status 'failed'."""

    question_id: Series[str]
    group: Series[str]
    prompt: Series[str]
    files: Series[str]
    sha256: Series[str] = pa.Field(description="of all files that are shown")
    status: Series[str] = pa.Field(isin=["ok", "failed"])
    error: Series[str]
    split: Series[str] = pa.Field(isin=["train", "validation", "test"])


class ResponsePairs(Table):
    """Pairs of responses to train a vision-language model on, one row each."""

    pair_id: Series[str] = pa.Field(unique=True)
    question_id: Series[str]
    group: Series[str]
    prompt: Series[str]
    files: Series[str]
    chosen: Series[str] = pa.Field(str_length={"min_value": 1})
    rejected: Series[str] = pa.Field(str_length={"min_value": 1})
    chosen_score: Series[float] = pa.Field(nullable=True, description="points of the judge; missing where unknown")
    rejected_score: Series[float] = pa.Field(nullable=True)


class VlmAnswers(Table):
    """Answers to held-out questions before and after training, a row a question."""

    question_id: Series[str] = pa.Field(unique=True)
    group: Series[str]
    prompt: Series[str]
    answer: Series[str]
    response_before: Series[str]
    response_after: Series[str]
    exact_before: Series[float] = share(
        "1 where the likeliest response is the right answer but for case and white space"
    )
    exact_after: Series[float] = share("the same after training")
    drawn_before: Series[str] = pa.Field(description="JSON list of responses that were drawn")
    drawn_after: Series[str]
    drawn_exact_before: Series[float] = share("share of the drawn responses that are right")
    drawn_exact_after: Series[float] = share("the same after training")
    points_before: Series[float] = pa.Field(nullable=True, description="points of the judge")
    points_after: Series[float] = pa.Field(nullable=True)
