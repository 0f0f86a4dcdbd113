"""unified_dpo on the micro-world: clips are compared and scored by one model, and sifted into pairs.

The model is a random one, whose answers change with the order and whose ranks and points disagree: all that sifting has
to deal with.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from tests.end_to_end.conftest import SMALLEST, kedro

from tiny_unifiedreward import saved_reward
from vr_pipeline.pairs.selection import select_pairs

pytestmark = pytest.mark.slow

RECIPES = ["dpo", "mpo", "sift"]


@pytest.fixture(scope="module")
def run(reward_run: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that starts from the prompts and clips of videoreward_dpo: its folder."""
    folder = shutil.copytree(reward_run[0], tmp_path_factory.mktemp("unified") / "project")
    saved_reward(folder / "reward")
    model = "unified_reward_model.path=reward,unified_reward_model.max_median_outside_mass=1.0"
    result = kedro(folder, "run", "--pipeline=unified_dpo", f"--params={SMALLEST},{model}")
    assert result.returncode == 0, (result.stdout + result.stderr)[-6000:]
    return folder


def table(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(next(folder.glob(f"data/**/{name}.parquet")))


def report(folder: Path, name: str) -> dict:
    return json.loads((folder / f"data/08_reporting/{name}.json").read_text(encoding="utf-8"))


def test_neighbours_are_compared_in_both_orders_and_every_clip_has_points(run: Path) -> None:
    index, comparisons, rewards = (table(run, name) for name in ("video_index", "pair_comparisons", "rewards"))
    sample = index.set_index("video_id")["sample_index"]
    assert set(comparisons["video_id_a"].map(sample)) == {0, 2}
    assert (comparisons["video_id_b"].map(sample) - comparisons["video_id_a"].map(sample)).eq(1).all()
    assert len(comparisons) == len(index) // 2
    assert (comparisons["p_a"] + comparisons["p_b"] + comparisons["p_tie"]).to_numpy() == pytest.approx(1)
    assert comparisons["position_bias"].abs().max() > 0
    assert sorted(rewards["video_id"]) == sorted(index["video_id"])
    ranking = report(run, "pair_ranking_report")
    assert (ranking["clips"], ranking["compared"], ranking["failed"]) == (len(index), len(comparisons), 0)
    assert ranking["requests"] == 2 * len(comparisons)
    assert 0 < ranking["order_flips"] <= 1


def test_sifted_pairs_are_those_of_the_rule_and_the_others_come_from_the_same_points(run: Path) -> None:
    rewards, comparisons = (table(run, name) for name in ("rewards", "pair_comparisons"))
    for recipe in RECIPES:
        expected = select_pairs(rewards, recipe, comparisons=comparisons, group_size=4)
        pd.testing.assert_frame_equal(table(run, f"preference_pairs_{recipe}"), expected)
    fates = report(run, "pair_selection_report")["strategies"]["sift"]["fates"]
    reasons = ("not_compared", "undecided", "disagreeing", "below_margin", "over_number")
    assert fates["groups"] == fates["selected"] + sum(fates[f"groups_{reason}"] for reason in reasons)
    assert fates["comparisons"] == len(comparisons)
    assert 0 < fates["selected"] < fates["groups"]


def test_policies_are_compared_and_the_page_shows_the_comparisons(run: Path) -> None:
    metrics = report(run, "evaluation_metrics")
    assert set(metrics["policies"]) == {"original", *RECIPES}
    assert metrics["reward"]["type"] == "unifiedreward"
    assert (run / "data/06_models/policy_sift/pytorch_lora_weights.safetensors").is_file()
    page = (run / "data/08_reporting/evaluation_report.html").read_text(encoding="utf-8")
    sections = re.findall(r'<section[^>]* id="(\w+)"', page)
    assert sections.index("comparisons") + 1 == sections.index("pairs")
    for words in (
        "Sifted: result for every group of candidates",
        "when the order of the clips is swapped",
        "Position bias",
    ):
        assert words in page
