"""Pairs for a pairwise reward: prompts that differ, labels that follow the oracle's utility."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vr_pipeline.checklist import load_checklist
from vr_pipeline.micro_world.config import CriterionParameters, RewardPairParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.preferences import CRITERIA
from vr_pipeline.micro_world.reward_pairs import compare_pairs, draw_pairs, sample_clips
from vr_pipeline.micro_world.world import (
    ATTRIBUTES,
    all_prompts,
    neighbouring_prompt,
    parse_prompt,
    render,
    sample_scene,
)
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


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_pairs_have_one_prompt_and_clips_of_it_or_a_neighbour(share: float) -> None:
    made_for = [prompt for prompt in all_prompts() for _ in range(10)]
    names = [f"clip {at}" for at in range(len(made_for))]
    parameters = RewardPairParameters(num_pairs=960, cross_prompt_share=share)
    pairs = draw_pairs(names, made_for, parameters, seed=0, purpose="test")
    assert len(pairs) == 960
    assert pairs["pair_id"].is_unique
    assert (pairs["a"] != pairs["b"]).all()
    # Both clips' prompts against the pair's: one is the prompt, the other differs in two attributes at most.
    far = np.array(
        [
            sorted(differences(prompt, made_for[end]) for end in (a, b))
            for prompt, a, b in pairs[["prompt", "a", "b"]].itertuples(index=False)
        ]
    )
    assert not far[:, 0].any()
    assert far[:, 1].max() <= 2
    crossed = (far[:, 1] > 0).mean()
    # Pairs of one prompt come twice now and then and are drawn again, which moves the share a little.
    assert abs(crossed - share) < (0.08 if 0 < share < 1 else 1e-9)
    shares = pairs["prompt"].value_counts(normalize=True)
    assert len(shares) == len(all_prompts())
    assert shares.max() < 2 * shares.min()
    first = (pairs["a"].map(lambda at: made_for[at]) == pairs["prompt"]).mean()
    assert abs(first - (1 - share / 2)) < 0.08
    assert pairs.equals(draw_pairs(names, made_for, parameters, seed=0, purpose="test"))
    assert not pairs.equals(draw_pairs(names, made_for, parameters, seed=1, purpose="test"))


def test_there_are_no_more_pairs_than_clips_allow() -> None:
    prompt = all_prompts()[0]
    parameters = RewardPairParameters(num_pairs=50, cross_prompt_share=0.0)
    assert len(draw_pairs(["x", "y", "z"], [prompt] * 3, parameters, seed=0, purpose="test")) == 3


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
    parameters = RewardPairParameters(num_pairs=300, criteria=CriterionParameters(**sure), **sure)
    pairs = draw_pairs(clips.video_ids, clips.prompts, parameters, seed=0, purpose="test")
    table = compare_pairs(pairs, clips, oracle.recognise(clips.frames), CHECKLIST, parameters, seed=0)
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
