"""Tables of the training of UnifiedRewards."""

import math

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from vr_pipeline.schemas.table import Table, share


class UnifiedItems(Table):
    """Labelled items for training a UnifiedReward, one row each: pairs (which is better) and points (a grade)."""

    item_id: Series[str] = pa.Field(unique=True, str_length={"min_value": 1})
    task: Series[str] = pa.Field(
        isin=["image_generation", "video_generation", "image_understanding", "video_understanding"]
    )
    form: Series[str] = pa.Field(isin=["pair", "point"])
    video_id_a: Series[str] = pa.Field(str_length={"min_value": 1})
    video_id_b: Series[str] = pa.Field(description="empty for points, and for two texts about one clip")
    prompt: Series[str] = pa.Field(description="prompt of the clips, or the question about the clip")
    response_a: Series[str] = pa.Field(description="text about the clip; empty for clips of a prompt")
    response_b: Series[str]
    answer: Series[str] = pa.Field(description="first, second or tie of a pair; the grade of a point, as text")
    dimension: Series[str] = pa.Field(description="of a grade; empty for an overall grade, and for pairs")
    source: Series[str]
    weight: Series[float] = pa.Field(gt=0.0, lt=math.inf, description="mean times that it is shown per epoch")

    @pa.dataframe_check(error="the answer of a pair is first, second or tie; that of a point is a number")
    @classmethod
    def answers_fit(cls, table: pd.DataFrame) -> pd.Series:
        numbers = pd.to_numeric(table["answer"], errors="coerce")
        return (table["form"] == "pair") & table["answer"].isin(["first", "second", "tie"]) | (
            (table["form"] == "point") & numbers.abs().lt(math.inf)
        )


class UnifiedRewardReport(Table):
    """Agreement of a trained UnifiedReward with people on held-out items, by task and form, for points by dimension."""

    task: Series[str]
    form: Series[str] = pa.Field(isin=["pair", "point"])
    dimension: Series[str] = pa.Field(description="of points; 'all' for all of them together, and for pairs")
    n: Series[int] = pa.Field(ge=0)
    ties: Series[float] = pa.Field(ge=0, nullable=True, description="pairs with a human tie")
    units: Series[int] = pa.Field(ge=0, description="prompts; those that share clips count as one")
    diff: Series[float] = share("correct order without human ties; for points, among those of one prompt")
    diff_low: Series[float] = share("95 % interval by prompt, from")
    diff_high: Series[float] = share("95 % interval by prompt, to")
    tau: Series[float] = share("correct order or tie, predicted by the threshold of validation pairs")
    tau_low: Series[float] = share("95 % interval by prompt, from")
    tau_high: Series[float] = share("95 % interval by prompt, to")
    tie_threshold: Series[float] = pa.Field(
        ge=0.0, nullable=True, description="largest lead that is predicted as a tie"
    )
    three_way_accuracy: Series[float] = share("share of correct answers of three, tau of UnifiedReward")
    three_way_accuracy_low: Series[float] = share("95 % interval by prompt, from")
    three_way_accuracy_high: Series[float] = share("95 % interval by prompt, to")
    macro_accuracy: Series[float] = share("mean over sources of diff, as VLRewardBench counts")
    always_first: Series[float] = share("three-way accuracy of the constant answer 'first'")
    always_tie: Series[float] = share("three-way accuracy of the constant answer 'tie'")
    one_order_diff: Series[float] = share("diff with one order of each pair")
    order_flips: Series[float] = share("pairs whose answer changes with the order")
    position_bias: Series[float] = share("mean size of half the difference between the orders")
    first_place_lead: Series[float] = pa.Field(
        ge=-1.0, le=1.0, nullable=True, description="mean of the same with its sign, above 0 if the first is favoured"
    )
    spearman: Series[float] = pa.Field(ge=-1.0 - 1e-9, le=1.0 + 1e-9, nullable=True)
    mean_absolute_error: Series[float] = pa.Field(ge=0.0, nullable=True)
    log_likelihood: Series[float] = pa.Field(le=1e-6, description="of the correct answer, mean over items")
    answer_mass: Series[float] = pa.Field(
        ge=0.0, le=1.0 + 1e-6, description="total probability of all answers of the template, mean over items"
    )
