"""The shipped UnifiedReward: as accurate as its card says on fresh clips of unseen prompts."""

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
from vr_pipeline.micro_world.clips import render_clips
from vr_pipeline.micro_world.config import UnifiedItemParameters
from vr_pipeline.micro_world.oracle import Oracle
from vr_pipeline.micro_world.reward_pairs import GeneratedClips, compare_pairs, draw_pairs, sample_clips
from vr_pipeline.micro_world.unified_figures import held_out_figures, pairs_of
from vr_pipeline.micro_world.unified_items import QUESTION, describe_clips
from vr_pipeline.micro_world.world import FRAMES_PER_SECOND, all_prompts
from vr_pipeline.rewards.training.held_out import HeldOutParameters, split_by_unit
from vr_pipeline.rewards.unifiedreward.training.items import items_from_preferences
from vr_pipeline.storage.atomic import damaged_file, sha256_of

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "data/06_models/micro_world/unifiedreward"


def block(file: str, name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "conf/base/parameters" / file).read_text(encoding="utf-8"))
    return dict(content[name])


@pytest.fixture(scope="module")
def tested() -> set[str]:
    """Prompts on which nothing was trained or chosen."""
    held_out = HeldOutParameters(**block("micro_unifiedreward.yml", "micro_unifiedreward")["held_out"])
    prompts = pd.Series(all_prompts())
    return set(prompts[split_by_unit(prompts.map(prompt_id), held_out) == "test"])


@pytest.fixture(scope="module")
def clips() -> GeneratedClips:
    """Clips that nothing was trained on."""
    parameters = GeneratorParameters(**block("generator.yml", "generator"))
    generator = load_micro_generator(ROOT / "data/06_models/micro_world/generator", parameters)
    return sample_clips(generator, 4, seed=0, purpose="test of the shipped unified reward")


def test_it_orders_fresh_pairs_of_unseen_prompts(clips: GeneratedClips, tested: set[str]) -> None:
    oracle = Oracle.load(ROOT / "data/06_models/micro_world/oracle.safetensors")
    checklist = load_checklist(ROOT / "conf/base/checklist.yml")
    pairs = draw_pairs(clips, 300, 0.5, prompts=tested, seed=0, purpose="test of the shipped unified reward")
    compared = compare_pairs(pairs, clips, oracle.recognise(clips.frames), checklist, UnifiedItemParameters(), seed=0)
    frames = dict(zip(clips.video_ids, clips.frames, strict=True))
    figures = held_out_figures(SHIPPED, frames, pairs_of(items_from_preferences(compared)))
    assert figures["pair"]["n"] > 200
    assert figures["pair"]["diff"] >= 0.72
    assert figures["point"]["diff"] >= 0.71
    assert abs(figures["first_place_lead"]) < 0.15
    assert figures["three_way"]["three_way_accuracy"] > figures["three_way"]["always_first"] + 0.15


def test_it_judges_descriptions_of_clips_of_unseen_prompts(tested: set[str]) -> None:
    rendered = render_clips(1440, seed=5, purpose="test of the shipped unified reward")
    chosen = rendered.part([at for at, scene in enumerate(rendered.scenes) if scene.prompt in tested])
    names = [str(at) for at in range(len(chosen.scenes))]
    compared, graded = describe_clips(chosen, names, UnifiedItemParameters(), seed=5)
    settings = {"type": "unifiedreward", "path": str(SHIPPED), "device": "cpu"}
    reward = vr.load_reward_model(settings)
    frames = [chosen.frames[int(name)] for name in compared["video_id_a"]]
    texts = [compared[name].tolist() for name in ("response_a", "response_b")]
    said = vr.load_ranker(settings).compare_responses(frames, [QUESTION] * len(frames), *texts, FRAMES_PER_SECOND)
    decided = (compared["answer"] != "tie").to_numpy()
    first = (said["p_a"] > said["p_b"]).to_numpy()
    assert (first == (compared["answer"] == "first"))[decided].mean() >= 0.58
    scores = reward.score_responses(
        [chosen.frames[int(name)] for name in graded["video_id"]],
        [QUESTION] * len(graded),
        graded["response"].tolist(),
        FRAMES_PER_SECOND,
    )
    assert np.corrcoef(scores["total"].to_numpy(dtype=float), graded["grade"])[0, 1] >= 0.5


def test_it_is_whole_and_the_card_names_its_files() -> None:
    assert damaged_file(SHIPPED) is None
    assert vr.load_reward_model(SHIPPED).dimensions == ("visual", "motion", "text")
    card = (SHIPPED / "README.md").read_text(encoding="utf-8")
    for path in sorted(SHIPPED.rglob("*.safetensors")):
        assert f"| {path.relative_to(SHIPPED).as_posix()} | `{sha256_of(path)}` |" in card
    assert sha256_of(ROOT / "data/06_models/micro_world/judge/model.safetensors") in card
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 4e6
