"""Pairs for a pairwise reward: prompts that differ, labels that follow the oracle's utility."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.checklist import load_checklist
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.micro_world.build import reward_pairs
from vr_pipeline.micro_world.config import (
    ComparisonParameters,
    CriterionParameters,
    MicroWorldParameters,
    RewardPairParameters,
)
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import CRITERIA
from vr_pipeline.micro_world.reward_pairs import GeneratedClips, compare_pairs, draw_pairs, sample_clips
from vr_pipeline.micro_world.world import (
    ATTRIBUTES,
    SIZE,
    all_prompts,
    neighbouring_prompt,
    parse_prompt,
    render,
    sample_scene,
)
from vr_pipeline.rewards.training.held_out import HeldOutParameters, split_by_unit
from vr_pipeline.schemas import HumanPreferences

ROOT = Path(__file__).resolve().parents[2]
CHECKLIST = load_checklist(ROOT / "conf/base/checklist.yml")


def drawer() -> Any:
    """Stand in for a generator: it renders a scene of each prompt from the seed."""

    def sample(prompts: list[str], seeds: list[int]) -> np.ndarray:
        return np.stack(
            [
                render(sample_scene(np.random.default_rng(seed), prompt))
                for prompt, seed in zip(prompts, seeds, strict=True)
            ]
        )

    return SimpleNamespace(sample=sample, identity="renderer")


def differences(first: str, second: str) -> int:
    return sum(one != other for one, other in zip(parse_prompt(first), parse_prompt(second), strict=True))


@pytest.mark.parametrize("changes", [0, 1, 2, 4])
def test_a_neighbour_differs_in_so_many_attributes(changes: int) -> None:
    for at, prompt in enumerate(all_prompts()):
        assert differences(prompt, neighbouring_prompt(np.random.default_rng(at), prompt, changes)) == changes


def clips_without_frames(prompts: list[str], each: int) -> GeneratedClips:
    made_for = [prompt for prompt in prompts for _ in range(each)]
    names = [f"clip {at}" for at in range(len(made_for))]
    return GeneratedClips(names, made_for, [0] * len(names), np.zeros((len(names), 8, SIZE, SIZE, 3), np.uint8))


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_pairs_have_one_prompt_and_clips_of_it_or_a_neighbour(share: float) -> None:
    clips = clips_without_frames(all_prompts(), 10)
    asked = set(all_prompts()[::2])
    pairs = draw_pairs(clips, 720, share, prompts=asked, seed=0, purpose="test")
    assert len(pairs) == 720
    assert pairs["pair_id"].is_unique
    assert (pairs["a"] != pairs["b"]).all()
    # Both clips' prompts against the pair's: one is the prompt, the other differs in two attributes at most.
    far = np.array(
        [
            sorted(differences(prompt, clips.prompts[end]) for end in (a, b))
            for prompt, a, b in pairs[["prompt", "a", "b"]].itertuples(index=False)
        ]
    )
    assert not far[:, 0].any()
    assert far[:, 1].max() <= 2
    assert ((far[:, 1] > 0) == pairs["crossed"]).all()
    # Pairs of one prompt come twice now and then and are drawn again, which moves the share a little.
    assert abs(pairs["crossed"].mean() - share) < (0.1 if 0 < share < 1 else 1e-9)
    shares = pairs["prompt"].value_counts()
    assert set(shares.index) == asked
    assert shares.max() < 2 * shares.min()
    first = (pairs["a"].map(lambda at: clips.prompts[at]) == pairs["prompt"]).mean()
    assert abs(first - (1 - share / 2)) < 0.1
    assert pairs.equals(draw_pairs(clips, 720, share, prompts=asked, seed=0, purpose="test"))
    assert not pairs.equals(draw_pairs(clips, 720, share, prompts=asked, seed=1, purpose="test"))


def test_there_are_no_more_pairs_than_clips_allow() -> None:
    prompt = all_prompts()[0]
    clips = clips_without_frames([prompt], 3)
    assert len(draw_pairs(clips, 50, 0.0, prompts={prompt}, seed=0, purpose="test")) == 3


def test_clips_depend_on_their_own_number_alone() -> None:
    few = sample_clips(drawer(), 1, seed=0, purpose="test")
    more = sample_clips(drawer(), 2, seed=0, purpose="test")
    assert few.video_ids == more.video_ids[::2]
    assert (few.frames == more.frames[::2]).all()
    assert not set(few.video_ids) & set(sample_clips(drawer(), 1, seed=0, purpose="other").video_ids)


def test_labels_follow_the_utility_of_the_pair_under_its_prompt() -> None:
    oracle = Oracle.load(ROOT / "data/06_models/micro_world/oracle.safetensors")
    clips = sample_clips(drawer(), 4, seed=0, purpose="test")
    # Next to no noise, no ties: the label is the sign of the difference.
    sure = {"temperature": 1e-9, "tie_width": 0.0}
    annotator = ComparisonParameters(criteria=CriterionParameters(**sure), **sure)
    pairs = draw_pairs(clips, 300, 0.6, prompts=set(all_prompts()), seed=0, purpose="test")
    table = compare_pairs(pairs, clips, oracle.recognise(clips.frames), CHECKLIST, annotator, seed=0)
    HumanPreferences.validate(table)
    for name in CRITERIA:
        gap = table[f"utility_{name}"]
        assert ((gap > 1e-6) == (table[f"preference_{name}"] == "a"))[gap.abs() > 1e-6].all()
    assert table[[f"utility_{name}" for name in CRITERIA]].sum(axis=1).to_numpy() == pytest.approx(
        table["utility"].to_numpy()
    )
    # The clip that was made for the pair's prompt follows it better than one made for another.
    own = {end: [clips.prompts[at] for at in pairs[end]] == table["prompt"] for end in ("a", "b")}
    crossed = own["a"] != own["b"]
    right = np.where(own["a"], table["preference_text"] == "a", table["preference_text"] == "b")[crossed]
    assert crossed.mean() > 0.4
    assert right.mean() > 0.95
    assert set(ATTRIBUTES) == {name.removesuffix("_matches") for name in CHECKLIST.question_ids if "_matches" in name}


def test_held_out_prompts_have_clips_of_their_own() -> None:
    oracle = Oracle.load(ROOT / "data/06_models/micro_world/oracle.safetensors")
    parameters = MicroWorldParameters(
        reward_pairs=RewardPairParameters(
            clips_per_prompt=3, num_pairs=120, num_held_out_clips_per_prompt=2, num_held_out_pairs=40
        )
    )
    held_out = HeldOutParameters(validation_share=0.15, test_share=0.2)
    plan, table = reward_pairs(drawer(), oracle, CHECKLIST, parameters, held_out)
    HumanPreferences.validate(table)
    assert table["pair_id"].is_unique
    sides = split_by_unit(table["prompt"].map(prompt_id), held_out)
    assert sides.value_counts()["train"] == 120
    assert set(sides) == {"train", "validation", "test"}
    clips = {
        side: {*rows["video_id_a"], *rows["video_id_b"]} for side, rows in table.groupby(sides.eq("train").to_numpy())
    }
    assert not clips[True] & clips[False]
    made = {item.key: item.metadata for item in plan.items}
    assert clips[True] | clips[False] <= set(made)
    assert len(made) == len(all_prompts()) * 5
    by_prompt = pd.DataFrame(list(made.values())).groupby(["generator", "prompt"])["sample_index"]
    assert by_prompt.max().isin([1, 2]).all()
