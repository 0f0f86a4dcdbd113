"""The linear reward of a clip.

Source: VisionReward (arXiv 2412.21059), section 3.2: R = sum_i w_i x_i with x_i the answer to question i (equations 3
and 4); the reward of a dimension is the sum over its questions (equation 6). The weights come from :mod:`.fit`.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from vr_pipeline.checklist.schema import Checklist
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.weights import Encoding, RewardWeights
from vr_pipeline.statistics.labels import FloatArray


def encode(answers: npt.ArrayLike, encoding: Encoding = "zero_one") -> FloatArray:
    """Return answers as the numbers that are multiplied by weights; NaN becomes 0.

    Args:
        answers: probabilities of yes or answers in {0, 1} (other features may have any scale), any shape; NaN where
            gated.
        encoding: ``zero_one`` keeps the numbers, ``plus_minus`` maps 0..1 to -1..1.
    """
    values = np.asarray(answers, dtype=np.float64)
    if np.isinf(values).any():
        place = np.argwhere(np.isinf(values))[0]
        remedy = "Correct the answers or judge the clip again"
        raise InputError("an answer is infinite", remedy=remedy, row=int(place[0]) + 1)
    if encoding == "plus_minus":
        values = 2.0 * values - 1.0
    elif encoding != "zero_one":
        raise InputError(f"unknown encoding '{encoding}'", remedy="Use zero_one or plus_minus", field="encoding")
    return np.where(np.isnan(values), 0.0, values)


def score(answers: npt.ArrayLike, weights: RewardWeights) -> FloatArray:
    """Return the total reward of each clip, [clips] (a scalar array for one clip).

    Args:
        answers: array [clips, questions] (or [questions] for one clip) with the columns ``weights.question_ids``, of
            the kind ``weights.answers``; NaN where gated.
        weights: the linear reward.
    """
    # Row sums instead of a matrix product: equal rows have exactly equal rewards, which ties and dominance need.
    return (encoded_answers(answers, weights) * weights.weights).sum(axis=-1)


def dimension_scores(answers: npt.ArrayLike, weights: RewardWeights, checklist: Checklist) -> pd.DataFrame:
    """Return the reward of each clip by dimension: the sum over the dimension's questions.

    Args:
        answers: as in :func:`score`, two-dimensional.
        weights: the linear reward.
        checklist: the dimensions of the questions.

    Returns:
        One row per clip, one column ``dim_<name>`` per dimension in checklist order; rows add up to the total.
    """
    encoded = np.atleast_2d(encoded_answers(answers, weights))
    dimension_of = {question.question_id: question.dimension for question in checklist.questions}
    unknown = [question for question in weights.question_ids if question not in dimension_of]
    if unknown:
        raise InputError(
            f"the weights have question '{unknown[0]}', which is not in the checklist",
            remedy="Fit the weights again with this checklist, or use the checklist they were fitted with",
            field="question_ids",
        )
    parts = encoded * weights.weights
    of_column = np.array([dimension_of[question] for question in weights.question_ids], dtype=object)
    return pd.DataFrame(
        {f"dim_{name}": np.ascontiguousarray(parts[:, of_column == name]).sum(axis=1) for name in checklist.dimensions}
    )


def encoded_answers(answers: npt.ArrayLike, weights: RewardWeights) -> FloatArray:
    """Return answers as the numbers that these weights multiply.

    Raises:
        InputError: the number of columns is not that of ``weights.question_ids``.
    """
    encoded = encode(answers, weights.encoding)
    if encoded.ndim not in (1, 2) or encoded.shape[-1] != len(weights.question_ids):
        raise InputError(
            f"answers have shape {encoded.shape}, the weights have {len(weights.question_ids)} questions",
            remedy="Give an array [clips, questions] with the columns of weights.question_ids",
            field="answers",
        )
    if weights.as_is:
        same = np.isin(np.array(weights.question_ids), weights.as_is)
        encoded = np.where(same, encode(answers, "zero_one"), encoded)
    return encoded
