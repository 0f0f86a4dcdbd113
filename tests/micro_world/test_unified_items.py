"""Items of the embedded UnifiedReward: grades that follow the oracle, descriptions whose right words are counted."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.checklist import load_checklist
from vr_pipeline.micro_world.clips import render_clips
from vr_pipeline.micro_world.config import MicroWorldParameters, UnifiedItemParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import CRITERIA, utilities
from vr_pipeline.micro_world.recogniser import answer_from
from vr_pipeline.micro_world.reward_pairs import sample_clips
from vr_pipeline.micro_world.unified_build import unified_items
from vr_pipeline.micro_world.unified_items import GRADE_STEP, describe_clips, grade_clips, right_words
from vr_pipeline.micro_world.world import all_prompts, parse_prompt, render, sample_scene
from vr_pipeline.rewards.training.held_out import HeldOutParameters
from vr_pipeline.rewards.unifiedreward.template_files import load_template
from vr_pipeline.rewards.unifiedreward.training.config import UnifiedRewardTrainingParameters
from vr_pipeline.rewards.unifiedreward.training.labelled import label_items
from vr_pipeline.schemas import UnifiedItems

ROOT = Path(__file__).resolve().parents[2]
CHECKLIST = load_checklist(ROOT / "conf/base/checklist.yml")


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle.load(ROOT / "data/06_models/micro_world/oracle.safetensors")


def drawer() -> Any:
    """Stand in for a generator: it renders a scene of each prompt from the seed."""

    def sample(prompts: list[str], seeds: list[int]) -> np.ndarray:
        scenes = [
            sample_scene(np.random.default_rng(seed), prompt) for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        return np.stack([render(scene) for scene in scenes])

    return SimpleNamespace(sample=sample, identity="renderer")


def test_the_mean_of_grades_is_the_whole_utility_but_for_rounding(oracle: Oracle) -> None:
    clips = sample_clips(drawer(), 4, seed=3, purpose="grades")
    recognised = oracle.recognise(clips.frames)
    exact = UnifiedItemParameters(grade_noise=0.0)
    table = grade_clips(clips, recognised, CHECKLIST, exact, prompts=frozenset(all_prompts()), seed=0)
    assert len(table) == 2 * len(clips.video_ids) * len(CRITERIA)
    assert table["grade"].between(1, 10).all()
    place = {name: at for at, name in enumerate(clips.video_ids)}
    rows = table[["prompt", "video_id"]].drop_duplicates()
    shown = {name: classes[[place[clip] for clip in rows["video_id"]]] for name, classes in recognised.items()}
    said = answer_from(shown, rows["prompt"].tolist(), CHECKLIST.question_ids)
    wide = table.pivot(index=["prompt", "video_id"], columns="dimension", values="grade")
    grades = wide.loc[pd.MultiIndex.from_frame(rows)]
    utility = utilities(said, CHECKLIST.question_ids)
    unclipped = (grades > 1).all(axis=1).to_numpy()
    apart = (utility.max() - utility) / GRADE_STEP - (grades.sum(axis=1).max() - grades.sum(axis=1)).to_numpy()
    assert np.abs(apart[unclipped]).max() <= 0.5 * 2 * len(CRITERIA)
    assert np.corrcoef(grades.mean(axis=1), utility)[0, 1] > 0.97
    # A clip keeps its grades where other prompts are left out.
    some = frozenset(all_prompts()[:10])
    fewer = grade_clips(clips, recognised, CHECKLIST, exact, prompts=some, seed=0)
    kept = table[table["prompt"].isin(some)].reset_index(drop=True)
    pd.testing.assert_frame_equal(fewer, kept)


def test_descriptions_are_compared_and_graded_by_their_right_words() -> None:
    clips = render_clips(300, seed=1, purpose="descriptions")
    names = [f"clip {at}" for at in range(300)]
    compared, graded = describe_clips(clips, names, UnifiedItemParameters(), seed=0)
    true = {name: scene.caption.split() for name, scene in zip(names, clips.scenes, strict=True)}
    for row in compared.itertuples():
        first, second = (right_words(text.split(), true[row.video_id_a]) for text in (row.response_a, row.response_b))
        assert row.answer == ("tie" if first == second else "first" if first > second else "second")
        assert row.response_a != row.response_b
    counts = compared["answer"].value_counts(normalize=True)
    assert abs(counts["first"] - counts["second"]) < 0.15
    assert 0.05 < counts["tie"] < 0.3
    for row in graded.itertuples():
        said = row.response.split()
        by_hand = [said[at] == word for at, word in enumerate(true[row.video_id][: len(said)])]
        assert row.grade == sum(by_hand)
    assert set(graded["grade"]) == {0.0, 1.0, 2.0, 3.0, 4.0, 5.0}
    assert (graded["response"].str.split().map(len) != 5).mean() == pytest.approx(0.1, abs=0.06)


def test_held_out_prompts_have_clips_of_their_own_in_both_tasks(oracle: Oracle) -> None:
    small = UnifiedItemParameters(
        clips_per_prompt=3,
        num_pairs=60,
        num_held_out_clips_per_prompt=2,
        num_held_out_pairs=40,
        num_described_clips=48,
        num_held_out_described_clips=96,
    )
    held_out = HeldOutParameters(validation_share=0.15, test_share=0.2, seed=1)
    world = MicroWorldParameters(unified_items=small)
    plan, items = unified_items(drawer(), oracle, CHECKLIST, world, held_out)
    UnifiedItems.validate(items)
    kinds = set(zip(items["task"], items["form"], strict=True))
    assert len(kinds) == 4
    index = pd.DataFrame([{**item.metadata, "video_id": item.key} for item in plan.items])
    start = {"family": "qwen2_vl", "path": "nowhere"}
    settings = UnifiedRewardTrainingParameters.model_validate(
        {"start": start, "template": "micro_world", "held_out": held_out.model_dump()}
    )
    found = label_items(items, index.assign(status="ok", error=""), load_template("micro_world"), settings)
    # The template asks for all of them, and no clip is on two sides.
    assert not len(found.left_out)
    counts = found.counts()
    assert counts["validation"]["clips_trained_on"] == counts["test"]["clips_trained_on"] == 0
    made_for = dict(zip(index["video_id"], index["prompt"], strict=True))
    table = found.table
    described = table[table["task"] == "video_understanding"]
    sides = described.groupby(described["video_id_a"].map(made_for))["split"].nunique()
    assert (sides == 1).all()
    assert {parse_prompt(prompt) for prompt in set(table["prompt"]) & set(all_prompts())}
