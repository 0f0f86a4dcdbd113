"""Where the alignment score of images comes from, and what it is worth in the public image reward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import ValidationError

from given_answers import public_score
from vr_pipeline.checklist import Checklist, checklist_from_mapping
from vr_pipeline.checklist.visionreward import ALIGNMENT_ID, ALIGNMENT_TEXT
from vr_pipeline.errors import InputError
from vr_pipeline.judges.alignment import load_alignment
from vr_pipeline.judges.config import AlignmentParameters, ChecklistInferenceParameters
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.checklist.scoring import movers, score_file
from vr_pipeline.rewards.checklist.visionreward import read_visionreward
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.vlm.config import JudgeParameters
from vr_pipeline.work import run_in_process

LINES = 30
GATES = {0: [22, 23, 24, 28, 29], 1: [25, 26], 2: [27]}
"""Lines of the public image list of 30 that are off where the body, the face or the hands are absent."""


class LineJudge:
    """Says yes to the lines it is given; its alignment is 0.25."""

    identity, num_frames, frames_per_second, world = "lines", 1, None, None

    def __init__(self, yes: Sequence[int]) -> None:
        self.yes = set(yes)

    def answer(
        self, clips: Sequence[Any], questions: Sequence[str], prompts: Sequence[str], **rates: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        said = [
            0.25 if question == ALIGNMENT_TEXT else 0.9 if int(question.split()[-1][:-1]) in self.yes else 0.2
            for question in questions
        ]
        return np.tile(said, (len(clips), 1)), np.full((len(clips), len(questions)), 0.1)


class Brightness:
    """A scorer of one's own."""

    def __init__(self, scale: float) -> None:
        self.scale, self.identity = scale, f"brightness times {scale}"

    def score(self, clips: Sequence[np.ndarray], prompts: Sequence[str], names: Sequence[str]) -> list[float]:
        return [self.scale * float(clip.mean()) / 255 for clip in clips]


@pytest.fixture
def public(tmp_path: Path) -> tuple[Checklist, RewardWeights, np.ndarray]:
    """Files of the public form of the image list of 30 lines and 28 weights, with other texts and numbers."""
    (tmp_path / "questions.txt").write_text("\n".join(f"Is it number {n}?" for n in range(LINES)), encoding="utf-8")
    values = np.round(np.random.default_rng(3).normal(0.4, 0.5, 28), 3)
    values[0] = 2.354
    (tmp_path / "weights.json").write_text(json.dumps({"coef": values.tolist()}), encoding="utf-8")
    checklist, weights = read_visionreward(tmp_path / "questions.txt", tmp_path / "weights.json")
    assert weights is not None
    return checklist, weights, values


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((8, 8, 3), 51, np.uint8)).save(path)
    return path


def test_image_score_worked_by_hand(tmp_path: Path) -> None:
    """All weights 1: the score counts features, so that it can be told without a computer."""
    (tmp_path / "questions.txt").write_text("\n".join(f"Is it number {n}?" for n in range(LINES)), encoding="utf-8")
    (tmp_path / "weights.json").write_text(json.dumps([2.0] + [1.0] * 27), encoding="utf-8")
    checklist, weights = read_visionreward(tmp_path / "questions.txt", tmp_path / "weights.json")
    assert weights is not None
    asked = [question for question in checklist.questions if question.question_id != ALIGNMENT_ID]
    # A body and a face, but no hands: line 27 is off. Of the other 26 lines 16 say yes and 10 no.
    yes = {0, 1, *range(3, 19)}
    answers = {ALIGNMENT_ID: 0.75} | {question.question_id: line in yes for line, question in enumerate(asked)}
    assert public_score(answers, checklist, weights) == pytest.approx((2 * 0.75 + 16 - 10) / 28)
    # No body: lines 22, 23, 24, 28 and 29, which said no, are off too.
    answers[asked[0].question_id] = False
    assert public_score(answers, checklist, weights) == pytest.approx((2 * 0.75 + 16 - 5) / 28)


@pytest.mark.parametrize("present", [(0, 1, 2), (0,), ()])
def test_a_judged_image_gets_the_public_score(
    public: tuple[Checklist, RewardWeights, np.ndarray], picture: Path, present: tuple[int, ...]
) -> None:
    checklist, weights, values = public
    yes = {*present, 4, 5, 9, 13, 22, 25, 27, 29}
    model = ChecklistReward(checklist, weights)
    model._loaded = (LineJudge(sorted(yes)), None)
    scored = score_file(model, picture, "a cat")
    x = np.array([1.0 if line in yes else -1.0 for line in range(LINES)])
    for gate, off in GATES.items():
        if gate not in present:
            x[off] = 0
    expected = float((np.concatenate([[0.25], x[3:]]) * values).mean())
    # The public score is the mean, the reward the sum of the same parts.
    assert scored.total / 28 == pytest.approx(expected, abs=1e-12)
    assert sum(scored.dimensions.values()) == pytest.approx(scored.total)
    moved = dict(movers(scored, weights, 28))
    assert moved[ALIGNMENT_ID] == pytest.approx(2.354 * (0.25 - 0.5))
    assert RewardWeights.from_json(weights.to_json()) == weights
    assert weights.to_json()["as_is"] == [ALIGNMENT_ID]


def test_table_of_answers_gets_the_public_score(
    public: tuple[Checklist, RewardWeights, np.ndarray], picture: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checklist, weights, values = public
    (tmp_path / "scores.csv").write_text("video_id,score\nv1,0.8\n007,0.3\n", encoding="utf-8")
    index = pd.DataFrame(
        {
            "video_id": ["v1", "007"],
            "prompt_id": "p",
            "prompt": "a cat",
            "sample_index": [0, 1],
            "path": "picture.png",
            "sha256": "x",
            "status": "ok",
        }
    )
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    judge = JudgeParameters(family="qwen2_vl", path=str(tmp_path))
    monkeypatch.setattr("vr_pipeline.judges.load_judge", lambda config: LineJudge([0, 1, 2, 7]))
    x = np.array([1.0 if line in (0, 1, 2, 7) else -1.0 for line in range(LINES)])[3:]
    identities = set()
    for alignment, values_of_it in (
        (None, (0.25, 0.25)),
        ({"table": str(tmp_path / "scores.csv")}, (0.8, 0.3)),
        ({"scorer": "test_alignment:Brightness", "options": {"scale": 2.0}}, (0.4, 0.4)),
        ({"judge": judge.model_dump()}, (0.25, 0.25)),
    ):
        monkeypatch.setitem(__import__("sys").modules, "test_alignment", SimpleNamespace(Brightness=Brightness))
        parameters = ChecklistInferenceParameters.model_validate({"alignment": alignment})
        model = ChecklistReward(checklist, weights, judge, parameters)
        plan = model.measure({"picture.png": picture}, index)
        identities.add(plan.items[0].identity)
        ((_, (shard,)),) = run_in_process(plan, plan.batches())
        answers = model.collect(SimpleNamespace(keys=["one"], load_joined=lambda keys, shard=shard: shard), index)
        assert set(answers["sampling"]) == {"every frame, at most 1"}
        rewards = model.rewards(answers, index)
        for total, score in zip(rewards["total"], values_of_it, strict=True):
            assert total / 28 == pytest.approx(float((np.concatenate([[score], x]) * values).mean()), abs=1e-12)
    assert len(identities) == 4


def test_sources_that_do_not_fit_are_rejected(
    public: tuple[Checklist, RewardWeights, np.ndarray], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    checklist, _, _ = public
    for content in ({}, {"table": "a.csv", "scorer": "a:b"}):
        with pytest.raises(ValidationError, match="exactly one"):
            AlignmentParameters.model_validate(content)
    with pytest.raises(InputError, match="cannot be imported"):
        load_alignment(AlignmentParameters(scorer="nowhere.at_all:x"), checklist)
    with pytest.raises(InputError, match="no question 'other'"):
        load_alignment(AlignmentParameters(scorer="a:b", question="other"), checklist)
    with pytest.raises(InputError, match="by its yes or no"):
        load_alignment(AlignmentParameters(scorer="a:b", question="symmetry_1"), checklist)
    monkeypatch.setitem(__import__("sys").modules, "test_alignment", SimpleNamespace(Brightness=Brightness))
    bright = AlignmentParameters(scorer="test_alignment:Brightness", options={"scale": 9.0})
    alignment = load_alignment(bright, checklist)
    assert alignment is not None
    p_yes = np.zeros((1, len(checklist.questions)))
    with pytest.raises(InputError, match="one score from 0 to 1"):
        alignment.replace(p_yes, p_yes, [np.full((1, 4, 4, 3), 200, np.uint8)], ["x"], ["x"])
    (tmp_path / "scores.csv").write_text("video_id,score\na,0.5\n", encoding="utf-8")
    table = load_alignment(AlignmentParameters(table=str(tmp_path / "scores.csv")), checklist)
    assert table is not None
    with pytest.raises(InputError, match="1 clips have no alignment score, for example 'b'"):
        table.replace(p_yes, p_yes, [np.zeros((1, 4, 4, 3), np.uint8)], ["x"], ["b"])


def test_own_image_checklist_asks_the_judge_for_alignment() -> None:
    from vr_pipeline.checklist import load_checklist

    checklist = load_checklist(Path(__file__).parents[2] / "conf/checklists/image.yml")
    scored = [question for question in checklist.questions if question.feature == "probability"]
    assert all(question.holds_prompt for question in scored)
    assert load_alignment(None, checklist_from_mapping_of_one()) is None


def checklist_from_mapping_of_one() -> Checklist:
    question = {"id": "a", "text": "Is it?"}
    sub = {"name": "s", "questions": [question]}
    return checklist_from_mapping(
        {"name": "x", "modality": "image", "dimensions": [{"name": "d", "sub_dimensions": [sub]}]}
    )
