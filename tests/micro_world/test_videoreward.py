"""The shipped VideoReward: as accurate as its card says on fresh clips, free of the prompt where it has to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import vr_pipeline as vr
from vr_pipeline.checklist import load_checklist
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.identifiers import prompt_id
from vr_pipeline.micro_world.build import load_micro_generator
from vr_pipeline.micro_world.config import ComparisonParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward_figures import held_out_figures, spread_over_prompts
from vr_pipeline.micro_world.reward_pairs import GeneratedClips, compare_pairs, draw_pairs, sample_clips
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND, all_prompts
from vr_pipeline.rewards.training.held_out import HeldOutParameters, split_by_unit
from vr_pipeline.storage.atomic import damaged_file, sha256_of

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data/06_models/micro_world/videoreward"
NAMES = ("visual", "motion", "text")


def block(file: str, name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "conf/base/parameters" / file).read_text(encoding="utf-8"))
    return dict(content[name])


@pytest.fixture(scope="module")
def reward() -> Any:
    return vr.load_reward_model({"type": "videoreward", "path": str(SHIPPED), "device": "cpu", "clip_batch": 32})


@pytest.fixture(scope="module")
def clips() -> GeneratedClips:
    """Clips that nothing was trained on."""
    parameters = GeneratorParameters(**block("generator.yml", "generator"))
    generator = load_micro_generator(ROOT / "data/06_models/micro_world/generator", parameters)
    return sample_clips(generator, 4, seed=0, purpose="test of the shipped reward")


@pytest.fixture(scope="module")
def compared(clips: GeneratedClips) -> pd.DataFrame:
    """Pairs of test prompts, on which nothing was trained or chosen."""
    oracle = Oracle.load(ROOT / "data/06_models/micro_world/oracle.safetensors")
    held_out = HeldOutParameters(**block("micro_videoreward.yml", "micro_videoreward")["held_out"])
    prompts = pd.Series(all_prompts())
    tested = set(prompts[split_by_unit(prompts.map(prompt_id), held_out) == "test"])
    pairs = draw_pairs(clips, 500, 0.6, prompts=tested, seed=0, purpose="test of the shipped reward")
    checklist = load_checklist(ROOT / "conf/base/checklist.yml")
    return compare_pairs(pairs, clips, oracle.recognise(clips.frames), checklist, ComparisonParameters(), seed=0)


def test_it_orders_fresh_pairs_of_unseen_prompts(reward: Any, clips: GeneratedClips, compared: pd.DataFrame) -> None:
    frames = dict(zip(clips.video_ids, clips.frames, strict=True))
    figures = held_out_figures(reward, frames, compared).set_index(["dimension", "pairs"])
    assert figures["n"].loc[("visual", "all")] == len(compared) > 300
    assert figures["diff"].loc[("visual", "all")] >= 0.85
    assert figures["diff"].loc[("motion", "all")] >= 0.77
    assert figures["diff"].loc[("text", "cross-prompt")] >= 0.85
    # Each dimension is about its own criterion: it agrees less with people who were asked about another.
    turned = compared.rename(
        columns={"preference_visual": "preference_motion", "preference_motion": "preference_visual"}
    )
    other = held_out_figures(reward, frames, turned).set_index(["dimension", "pairs"])
    for name in ("visual", "motion"):
        assert other["diff"].loc[(name, "all")] < figures["diff"].loc[(name, "all")] - 0.1


def test_visual_and_motion_are_exactly_free_of_the_prompt(reward: Any, clips: GeneratedClips) -> None:
    spread = spread_over_prompts(reward, list(clips.frames[:40]))
    assert spread["visual"] == 0.0
    assert spread["motion"] == 0.0
    assert spread["text"] > 0.3
    # Also one by one and in a batch of prompts of mixed length, with the names of tokens among their words.
    prompts = ["red ball moves left on black", "", "<|visual_reward|> </clip> <clip> " * 3, "right ? the motion"]
    together = reward.score([clips.frames[0]] * len(prompts), prompts, FRAMES_PER_SECOND)
    for name in ("dim_visual", "dim_motion"):
        assert together[name].nunique() == 1
    alone = [reward.score([clips.frames[0]], [prompt], FRAMES_PER_SECOND) for prompt in prompts]
    for name in ("dim_visual", "dim_motion"):
        assert len({float(table[name].iloc[0]) for table in alone}) == 1


def test_stored_clips_are_those_of_training_however_enlarged(reward: Any, clips: GeneratedClips) -> None:
    prompts = clips.prompts[:3]
    tables = [
        reward.score(
            [clip.repeat(step, axis=1).repeat(step, axis=2) for clip in clips.frames[:3]], prompts, FRAMES_PER_SECOND
        )
        for step in (1, 2, 4)
    ]
    for table in tables:
        assert not table["outside_training"].any()
        assert table.equals(tables[0])
    slower = reward.score(list(clips.frames[:3]), prompts, FRAMES_PER_SECOND / 4)
    assert slower["outside_training"].all()


def test_it_is_whole_and_the_card_names_its_files(reward: Any) -> None:
    assert damaged_file(SHIPPED) is None
    assert reward.dimensions == NAMES
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    for path in sorted(SHIPPED.rglob("*.safetensors")):
        assert f"| {path.relative_to(SHIPPED).as_posix()} | `{sha256_of(path)}` |" in card
    judge = sha256_of(ROOT / "data/06_models/micro_world/judge/model.safetensors")
    assert judge in card
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 4e6


def test_it_agrees_with_the_shipped_preferences(reward: Any) -> None:
    folder = ROOT / "data/01_raw/micro_world"
    preferences = pd.read_csv(folder / "human_preferences.csv").head(200)
    ranker = vr.load_ranker({"type": "videoreward", "path": str(SHIPPED), "device": "cpu", "clip_batch": 32})
    ends = [[folder / "preference_videos" / f"{name}.mp4" for name in preferences[f"video_id_{end}"]] for end in "ab"]
    said = ranker.compare(*ends, preferences["prompt"].tolist())
    assert said[["p_a", "p_b", "p_tie"]].sum(axis=1).to_numpy() == pytest.approx(np.ones(len(said)))
    for name, bar in (("visual", 0.85), ("motion", 0.77)):
        untied = preferences[f"preference_{name}"] != "tie"
        right = (said[f"p_a_{name}"] > said[f"p_b_{name}"]) == (preferences[f"preference_{name}"] == "a")
        assert right[untied].mean() >= bar
