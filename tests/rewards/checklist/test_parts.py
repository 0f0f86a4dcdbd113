"""Answers and rewards of more clips than fit in memory equal those of one table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.errors import InputError
from vr_pipeline.items.filling import fill_folder
from vr_pipeline.judges.answers import answer_table, summarise
from vr_pipeline.judges.config import ChecklistInferenceParameters
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.tables import reward_table
from vr_pipeline.rewards.checklist.weights import equal_weights
from vr_pipeline.schemas.parts import TableParts

QUESTIONS = [
    {"id": "a", "text": "a?", "weighted": False},
    {"id": "b", "text": "b?", "gate": "a"},
    {"id": "c", "text": "c?", "gate": "b"},
    {"id": "d", "text": "d?"},
]


def make_checklist() -> Checklist:
    parts = [{"name": "x", "questions": QUESTIONS[:3]}, {"name": "y", "questions": QUESTIONS[3:]}]
    dimensions = [{"name": part["name"], "sub_dimensions": [part]} for part in parts]
    return checklist_from_mapping({"name": "t", "modality": "video", "dimensions": dimensions})


class Given(ChecklistReward):
    """Answers by a hash of the clip's name; clip v3 cannot be judged."""

    measured_by = ("given",)  # type: ignore[assignment]
    recorded = {}  # type: ignore[assignment]  # noqa: RUF012

    def loaded(self) -> None:
        return None

    def read_group(self, loaded: None, videos: Any, clips: Any) -> None:
        return None

    def measure_group(self, loaded: None, videos: Any, clips: Any, sampled: Any = None) -> pd.DataFrame:
        tables = []
        for clip in clips:
            name = clip["video_id"]
            values = np.random.default_rng(int(name[1:])).random((4, 2))
            rows = {
                "question_id": ["a", "b", "c", "d"],
                "p_yes": values[:, 0],
                "outside_mass": values[:, 1],
                "error": "",
            }
            nothing = {"question_id": [""], "p_yes": [np.nan], "outside_mass": [np.nan], "error": ["too dark"]}
            table = pd.DataFrame(nothing if name == "v3" else rows)
            tables.append(table.assign(video_id=name, frames_judged=len(name), sampling="all"))
        return pd.concat(tables, ignore_index=True)


def make_index(prompts: list[int]) -> pd.DataFrame:
    names = [f"v{n}" for n in range(len(prompts))]
    index = pd.DataFrame({"video_id": names, "prompt_id": [f"p{n}" for n in prompts], "prompt": "a"})
    status = np.where(np.arange(len(names)) % 7 == 5, "failed", "ok")
    return index.assign(sample_index=range(len(names)), path="", sha256="", status=status)


@given(
    prompts=st.lists(st.integers(0, 4), min_size=5, max_size=14),
    clips_per_item=st.integers(1, 3),
    at_a_time=st.integers(1, 4),
)
def test_parts_equal_the_whole(
    prompts: list[int], clips_per_item: int, at_a_time: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    index = make_index(prompts)
    judging = ChecklistInferenceParameters(clips_per_item=clips_per_item, max_median_outside_mass=0.999)
    model = Given(make_checklist(), equal_weights(make_checklist()), judging=judging)
    stored = fill_folder(tmp_path_factory.mktemp("s") / "s", {"type": "table"}, model.measure(None, index))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vr_pipeline.rewards.checklist.model.GROUPS_IN_A_PART", at_a_time)
        parts = model.collect_parts(stored, index)
        whole = model.collect(stored, index)
        pd.testing.assert_frame_equal(parts.whole(), whole)
        seen = [clip for part in parts for clip in part["video_id"].unique()]
        usable = [name for name, status in zip(index["video_id"], index["status"], strict=True) if status == "ok"]
        assert seen == [name for name in usable if name != "v3"]
        pd.testing.assert_frame_equal(model.rewards(parts, index), model.rewards(whole, index))
        assert summarise(parts, index) == summarise(whole, index)
        judging = judging.model_copy(update={"max_median_outside_mass": 0.0})
        strict = Given(make_checklist(), judging=judging)
        with pytest.raises(InputError, match="does not answer with yes or no"):
            strict.collect_parts(stored, index).whole()


def test_parts_of_which_none_can_be_used_are_an_error(tmp_path: Path) -> None:
    index = make_index([0, 1, 2, 3])[3:]
    model = Given(make_checklist())
    stored = fill_folder(tmp_path / "s", {"type": "table"}, model.measure(None, index))
    with pytest.raises(InputError, match="no clip could be judged; the first reason: too dark"):
        model.collect_parts(stored, index).whole()


def made_answers(clips: int, checklist: Checklist) -> tuple[pd.DataFrame, pd.DataFrame]:
    index = make_index([n // 2 for n in range(clips)]).assign(status="ok")
    rng = np.random.default_rng(0)
    rows = pd.MultiIndex.from_product([index["video_id"], checklist.question_ids], names=["video_id", "question_id"])
    table = rows.to_frame(index=False).assign(outside_mass=0.0, frames_judged=1, sampling="")
    return table.assign(p_yes=rng.random(len(table))), index


@given(cuts=st.sets(st.integers(0, 24), max_size=5))
def test_parts_may_end_within_a_clip(cuts: set[int]) -> None:
    checklist = make_checklist()
    rows, index = made_answers(6, checklist)
    answers, weights = answer_table(rows, index, checklist), equal_weights(checklist)
    ends = [*sorted(cuts), len(answers)]
    parts = [answers.iloc[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    expected = reward_table(answers, index, checklist, weights)
    pd.testing.assert_frame_equal(reward_table(TableParts(lambda: parts), index, checklist, weights), expected)


def test_a_clip_at_two_places_is_an_error() -> None:
    checklist = make_checklist()
    rows, index = made_answers(3, checklist)
    answers = answer_table(rows, index, checklist)
    parts = TableParts(lambda: [answers, answers.iloc[:4]])
    with pytest.raises(InputError, match="about video 'v0' at two places"):
        reward_table(parts, index, checklist, equal_weights(checklist))


@given(seed=st.integers(0, 1000))
def test_answers_are_arranged_and_gated_as_one_by_one(seed: int) -> None:
    checklist = make_checklist()
    rows, index = made_answers(5, checklist)
    rng = np.random.default_rng(seed)
    rows = rows.assign(p_yes=rng.random(len(rows)).round(1))
    table = answer_table(rows.sample(frac=1, random_state=seed), index, checklist)
    assert table["video_id"].tolist() == rows["video_id"].tolist()
    assert table["question_id"].tolist() == rows["question_id"].tolist()
    assert table["p_yes"].tolist() == rows["p_yes"].tolist()
    said = {(row.video_id, row.question_id): row.p_yes > 0.5 for row in rows.itertuples()}
    for row in table.itertuples():
        gates = checklist.gates_of(row.question_id)
        assert row.gated == any(not said[row.video_id, gate] for gate in gates)
        assert row.answer == said[row.video_id, row.question_id]
