"""Faults that a judge is given on purpose: a bias that has a name, and random errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.errors import InputError
from vr_pipeline.judges.config import ChecklistInferenceParameters, FaultParameters
from vr_pipeline.judges.faults import Faults, faults_of
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.weights import equal_weights
from vr_pipeline.video.sampled import SampledClip
from vr_pipeline.vlm.config import JudgeParameters

QUESTIONS = ("fast", "steady", "sharp")
ANSWERS = st.lists(st.floats(0, 1), min_size=3, max_size=3).map(np.array)
NAMES = [f"clip{number}" for number in range(400)]


@pytest.fixture(scope="module")
def checklist() -> Checklist:
    asked = [{"id": name, "text": f"is it {name}"} for name in QUESTIONS]
    parts = [{"name": "all", "sub_dimensions": [{"name": "all", "questions": asked}]}]
    return checklist_from_mapping({"name": "faults", "modality": "video", "dimensions": parts})


@given(ANSWERS)
@settings(deadline=None)
def test_a_wrong_signal_also_counts_as_yes(checklist: Checklist, p_yes: np.ndarray) -> None:
    biased = Faults(FaultParameters(bias={"fast": "not steady"}), checklist).change(p_yes, "clip")
    fast, steady, sharp = p_yes
    assert biased.tolist() == [max(fast, 1.0 - steady), steady, sharp]
    # Of answers cut at one half this is a plain 'or'.
    assert (biased[0] > 0.5) == (fast > 0.5 or 1.0 - steady > 0.5)
    direct = Faults(FaultParameters(bias={"fast": "sharp"}), checklist).change(p_yes, "clip")
    assert direct.tolist() == [max(fast, sharp), steady, sharp]


def test_biases_see_what_the_judge_answered_and_errors_come_after_them(checklist: Checklist) -> None:
    chain = FaultParameters(bias={"fast": "steady", "sharp": "fast"})
    p_yes = np.array([0.1, 0.9, 0.2])
    assert Faults(chain, checklist).change(p_yes, "clip").tolist() == [0.9, 0.9, 0.2]
    all_wrong = chain.model_copy(update={"error_rate": 1.0})
    assert Faults(all_wrong, checklist).change(p_yes, "clip") == pytest.approx([0.1, 0.1, 0.8])
    assert p_yes.tolist() == [0.1, 0.9, 0.2]


def wrong(checklist: Checklist, names: Sequence[str], rate: float, seed: int = 0) -> np.ndarray:
    """Which answers are turned around, [clips, questions]."""
    faults = Faults(FaultParameters(error_rate=rate, seed=seed), checklist)
    return np.stack([faults.change(np.zeros(3), name) == 1.0 for name in names])


def test_an_error_depends_on_seed_clip_and_question_alone(checklist: Checklist) -> None:
    found = wrong(checklist, NAMES, 0.2)
    assert (wrong(checklist, NAMES[::-1], 0.2)[::-1] == found).all()
    assert not (wrong(checklist, NAMES, 0.2, seed=1) == found).all()
    # A higher rate turns further answers around.
    assert (found <= wrong(checklist, NAMES, 0.4)).all()
    # 1,200 draws: six standard deviations of the binomial distribution.
    assert abs(found.mean() - 0.2) < 6 * np.sqrt(0.2 * 0.8 / found.size)
    assert abs(np.corrcoef(found.T)[np.triu_indices(3, 1)]).max() < 6 / np.sqrt(len(NAMES))


def test_a_question_that_the_checklist_lacks_is_named(checklist: Checklist) -> None:
    for bias in ({"fats": "steady"}, {"fast": "not steadi"}):
        with pytest.raises(InputError, match=r"no question '(fats|steadi)'.*fast, steady, sharp"):
            ChecklistReward(checklist, judging=ChecklistInferenceParameters(faults=FaultParameters(bias=bias)))


class Sure:
    """Says that every clip is steady, not fast and not sharp."""

    identity, num_frames, frames_per_second = "sure", None, None

    def answer(
        self, clips: Sequence[np.ndarray], questions: Sequence[str], prompts: Sequence[str], **_: object
    ) -> tuple[np.ndarray, np.ndarray]:
        return np.tile([0.0, 1.0, 0.0], (len(clips), 1)), np.zeros((len(clips), len(questions)))


def clip(name: str) -> SampledClip:
    return SampledClip(name, "a prompt", np.zeros((2, 4, 4, 3), np.uint8), [0, 1], 8.0)


def test_the_rewards_judge_has_the_faults(checklist: Checklist) -> None:
    bias = FaultParameters(bias={"sharp": "steady"}, error_rate=0.3)
    model = ChecklistReward(checklist, judging=ChecklistInferenceParameters(faults=bias))
    tables = model.look((Sure(), None), [clip(name) for name in NAMES[:50]])
    for name, table in zip(NAMES, tables, strict=False):
        assert isinstance(table, pd.DataFrame)
        expected = Faults(bias, checklist).change(np.array([0.0, 1.0, 0.0]), name)
        assert table["p_yes"].tolist() == expected.tolist()


def test_stored_answers_belong_to_a_judge_with_its_faults(checklist: Checklist, tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    judge = JudgeParameters(family="qwen2_vl", path=str(tmp_path))

    def model(faults: FaultParameters | None) -> ChecklistReward:
        judging = ChecklistInferenceParameters(faults=faults)
        return ChecklistReward(checklist, equal_weights(checklist), judge, judging)

    plain, none = model(None), model(FaultParameters(seed=3))
    assert faults_of(FaultParameters(seed=3), checklist) is None
    assert (plain.measured_by, plain.depends_on) == (none.measured_by, none.depends_on)
    faulty = [model(FaultParameters(error_rate=0.1)), model(FaultParameters(error_rate=0.1, seed=1))]
    faulty.append(model(FaultParameters(bias={"fast": "sharp"})))
    for kind in ("measured_by", "depends_on"):
        assert len({getattr(one, kind) for one in (plain, *faulty)}) == 4
