"""The front against its definition, and the section that shows it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.support.report_inputs import TITLES, report_inputs

from vr_pipeline.evaluation.pareto import pareto_front
from vr_pipeline.evaluation.report.comparison import dimensions_of
from vr_pipeline.evaluation.report.sections import pareto as section


@given(arrays(np.int64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.integers(0, 4)))
def test_the_front_is_what_no_point_dominates(values: np.ndarray) -> None:
    expected = [not any((other >= point).all() and (other > point).any() for other in values) for point in values]
    assert pareto_front(values).tolist() == expected
    assert pareto_front(values).any(), "something is always on the front"
    # Scales of dimensions do not matter.
    assert pareto_front(values * np.arange(1, values.shape[1] + 1) * 0.37).tolist() == expected


def logs() -> list[pd.DataFrame]:
    """Validated checkpoints: one recipe trades quality for dynamics, the other one gains both."""
    start = {"dim_quality": 2.0, "dim_dynamics": 1.0, "dim_alignment": 3.0}
    traded = [start, {**start, "dim_quality": 1.5, "dim_dynamics": 2.0}, {**start, "dim_quality": 1.0}]
    gained = [start, {**start, "dim_quality": 2.5, "dim_dynamics": 1.5}, {**start, "dim_quality": 2.4}]
    return [pd.DataFrame(rows).assign(step=[0, 50, 100], chosen=[False, True, False]) for rows in (traded, gained)]


def test_checkpoints_that_lose_a_dimension_are_named_and_the_front_is_marked() -> None:
    data = report_inputs()
    rewards = (data["evaluation_rewards"], data["evaluation_oracle_rewards"], None)
    page = " ".join(section.make(TITLES, *rewards, *logs()))
    text = page[page.index("Checkpoints by the judge, on the prompts of validation: gain") :]

    def row(name: str) -> str:
        return text[text.index(name) :].split("</tr>")[0]

    assert "quality" in row("DPO, step 50, chosen")
    assert ">yes<" in row("DPO, step 50, chosen"), "it has most dynamics"
    assert ">no<" in row("DPO, step 100"), "the original is as good everywhere and better in quality"
    assert "none" in row("MPO, step 50, chosen")
    assert ">yes<" in row("MPO, step 50, chosen")
    assert ">no<" in row("MPO, step 100")
    assert ">no<" in row("Original")
    assert page.count("quality and dynamics") + page.count("dynamics and quality") >= 1
    # In the picture of these two dimensions the two front points have rings, and the screen reader hears them.
    picture = next(part for part in page.split("<svg") if "quality and dynamics" in part.split(">")[0])
    assert picture.count('class="ring"') == 2
    assert "on the front: DPO, step 50, chosen; MPO, step 50, chosen" in picture.split(">")[0]
    assert "Policies by the oracle" in page
    # The log's dimensions come in the order of the rewards, as in the other tables.
    places = [text.index(f">{name}<") for name in dimensions_of(rewards[0]) if f"dim_{name}" in logs()[0]]
    assert len(places) > 1
    assert places == sorted(places)


def test_without_validation_policies_alone_are_shown_and_without_rewards_nothing() -> None:
    data = report_inputs(oracle=False)
    empty = pd.DataFrame(columns=["step", "chosen"])
    judge, none = data["evaluation_rewards"], data["evaluation_oracle_rewards"]
    page = " ".join(section.make(TITLES, judge, none, None, empty, empty))
    assert "Policies by the judge" in page
    assert "Checkpoints" not in page
    assert section.make(TITLES, judge.head(0), none, None, empty, empty) == []
