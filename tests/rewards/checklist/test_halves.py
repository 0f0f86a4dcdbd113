"""Two halves of the questions, and the weights of one of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.checklist import Checklist, checklist_from_mapping, load_checklist
from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.halves import question_halves, with_left_out
from vr_pipeline.rewards.checklist.linear import score
from vr_pipeline.rewards.checklist.weights import RewardWeights

ROOT = Path(__file__).resolve().parents[3]


def checklist_of(shape: list[list[int]], gates: int = 0, turned: bool = False) -> Checklist:
    """One entry per dimension with the numbers of questions of its sub-dimensions."""
    dimensions = [
        {
            "name": f"d{d}",
            "sub_dimensions": [
                {
                    "name": f"d{d}s{s}",
                    "questions": [
                        {"id": f"q{d}-{s}-{k}", "text": f"is it {d} {s} {k} ?", "weighted": not (d == 0 and k < gates)}
                        for k in range(questions)
                    ],
                }
                for s, questions in enumerate(subs)
            ],
        }
        for d, subs in enumerate(shape)
    ]
    for dimension in dimensions if turned else []:
        dimension["sub_dimensions"].reverse()  # type: ignore[attr-defined]
    return checklist_from_mapping({"name": "any", "modality": "video", "dimensions": dimensions})


@settings(max_examples=60, deadline=None)
@given(shape=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4), min_size=1, max_size=5))
def test_every_question_is_in_one_half_and_every_dimension_in_both(shape: list[list[int]]) -> None:
    checklist = checklist_of(shape)
    if len(checklist.questions) < 2:
        with pytest.raises(InputError, match="too few weighted questions"):
            question_halves(checklist)
        return
    first, second = question_halves(checklist)
    assert sorted((*first, *second)) == sorted(checklist.question_ids)
    assert first
    assert second
    half_of = {name: k for k, half in enumerate((first, second)) for name in half}
    for dimension in checklist.dimensions:
        own = checklist.questions_of(dimension)
        subs = {question.sub_dimension for question in own}
        if len(own) > 1:
            assert {half_of[question.question_id] for question in own} == {0, 1}
        if len(subs) > 1:
            for sub in subs:
                assert len({half_of[question.question_id] for question in own if question.sub_dimension == sub}) == 1
            dealt = [half_of[next(q for q in own if q.sub_dimension == sub).question_id] for sub in subs]
            assert abs(dealt.count(0) - dealt.count(1)) <= 1
    turned = question_halves(checklist_of(shape, turned=True))
    assert [set(half) for half in turned] == [set(first), set(second)], "the order within a dimension does not matter"


def test_gates_are_in_no_half() -> None:
    checklist = checklist_of([[2, 2], [2]], gates=1)
    assert set().union(*question_halves(checklist)) == {"q0-0-1", "q0-1-1", "q1-0-0", "q1-0-1"}


@pytest.mark.parametrize("name", ["base/checklist.yml", "checklists/video.yml", "checklists/image.yml"])
def test_shipped_checklists_have_every_dimension_in_both_halves(name: str) -> None:
    checklist = load_checklist(ROOT / "conf" / name)
    halves = question_halves(checklist)
    for dimension in checklist.dimensions:
        own = {question.question_id for question in checklist.questions_of(dimension) if question.weighted}
        assert len(own) < 2 or all(own & set(half) for half in halves), dimension


def test_weights_of_a_half_score_by_its_questions_alone() -> None:
    half = RewardWeights(("c", "a"), np.array([2.0, 1.0]), np.array([1.0, 0.5]), removals=({"step": 1},))
    whole = with_left_out(half, ("a", "b", "c"))
    assert whole.weights.tolist() == [1.0, 0.0, 2.0]
    assert whole.kept == ("a", "c")
    assert [removal.get("reason") for removal in whole.removals] == ["in the other half", None]
    answers = np.random.default_rng(0).random((5, 3))
    assert score(answers, whole) == pytest.approx(score(answers[:, [2, 0]], half))
    assert RewardWeights.from_json(whole.to_json()) == whole
