"""The pipeline in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner
from matplotlib.figure import Figure
from pydantic import ValidationError

from vr_pipeline.checklist import Checklist, load_checklist
from vr_pipeline.pairs.config import PairRankingParameters, PairSelectionParameters
from vr_pipeline.pairs.schedule import scheduled_pairs
from vr_pipeline.pipelines.pair_selection.pipeline import create_pipeline
from vr_pipeline.pipelines.recipes import RECIPES
from vr_pipeline.pipelines.systems import UNIFIED_DPO
from vr_pipeline.schemas import PreferencePairs


class KeptDataset(MemoryDataset):
    """Keeps what a runner would let go once all nodes have read it."""

    def _release(self) -> None:
        pass


@pytest.fixture(scope="module")
def checklist() -> Checklist:
    return load_checklist(Path(__file__).parents[3] / "conf/base/checklist.yml")


@pytest.fixture(scope="module")
def rewards(checklist: Checklist) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.integers(0, 3, (160, 5)) / 4, columns=[f"dim_{name}" for name in checklist.dimensions])
    return table.assign(
        total=table.sum(axis=1),
        prompt_id=[f"p{i // 16}" for i in range(160)],
        sample_index=[i % 16 for i in range(160)],
        video_id=[f"v{i:03d}" for i in range(160)],
    )


@pytest.fixture(params=[False, True])
def catalog(rewards: pd.DataFrame, request: pytest.FixtureRequest) -> DataCatalog:
    """What the pipeline makes, as selected and at matched numbers."""
    settings = {
        "group_size": 4,
        "match_numbers": request.param,
        "recipes": {"mpo": {"rule": "mpo"}, "dpo": {"rule": "dpo"}},
    }
    inputs: dict[str, Any] = {
        "rewards": rewards,
        "params:pair_selection": PairSelectionParameters.model_validate(settings),
    }
    return run(create_pipeline(), inputs)


def test_pairs_and_report(catalog: DataCatalog, rewards: pd.DataFrame) -> None:
    matched = catalog.load("params:pair_selection").match_numbers
    report = catalog["pair_selection_report"].load()
    block = (rewards["prompt_id"] + "/" + (rewards["sample_index"] // 4).astype(str)).set_axis(rewards["video_id"])
    for recipe in RECIPES:
        pairs = PreferencePairs.validate(catalog[recipe.dataset("preference_pairs")].load())
        assert report["strategies"][recipe.name]["n"] == len(pairs)
        assert (pairs["winner_video_id"].map(block) == pairs["loser_video_id"].map(block)).all()
        assert pairs["winner_video_id"].map(block).is_unique  # one pair a group
        fates = report["strategies"][recipe.name]["fates"]
        assert fates == catalog[recipe.dataset("pair_counts")].load()
        assert fates["candidates"] == 40 * 6
        assert fates["groups"] == 40
        assert fates["groups_without_pair"] == 40 - len(pairs)
    assert report["strategies"]["mpo"]["not_dominating"] == 0
    assert report["matched"]["dpo"]["n"] == report["matched"]["mpo"]["n"]
    numbers = {recipe.name: report["strategies"][recipe.name] for recipe in RECIPES}
    assert (numbers["dpo"]["n"] == numbers["mpo"]["n"]) == matched
    assert (numbers["dpo"]["fates"]["over_number"] > 0) == matched
    assert isinstance(catalog["dimension_gaps_plot"].load(), Figure)
    assert isinstance(catalog["pair_fates_plot"].load(), Figure)


def test_typing_errors_in_parameters_stop() -> None:
    mpo = {"rule": "mpo"}
    for wrong, message in (
        ({"recipes": {"mpo": {**mpo, "min_margins": 0.5}}}, "min_margins"),
        ({"recipes": {"mpo": {"rule": "best"}}}, "unknown rule; use one of bounded, dpo, mpo"),
        ({"recipes": {"mpo": mpo}, "group_size": 1}, "group_size"),
        ({}, "recipes"),
    ):
        with pytest.raises(ValidationError, match=message):
            PairSelectionParameters.model_validate(wrong)


def test_a_system_that_ranks_pairs_sifts_too_and_its_other_recipes_take_no_notice_of_ranks(
    rewards: pd.DataFrame,
) -> None:
    pipeline = create_pipeline(system=UNIFIED_DPO)
    pairs = scheduled_pairs(rewards.assign(status="ok"), PairRankingParameters(), 4)
    better = np.array(["a", "b", "tie"])[np.arange(len(pairs)) % 3]
    settings = {"group_size": 4, "recipes": {name: {"rule": name} for name in ("dpo", "mpo", "sift")}}
    inputs: dict[str, Any] = {
        "rewards": rewards,
        "pair_comparisons": pairs.assign(better=better),
        "params:pair_selection": PairSelectionParameters.model_validate(settings),
    }
    assert pipeline.all_outputs() - create_pipeline().all_outputs() == {"preference_pairs_sift", "pair_counts_sift"}
    made = run(pipeline, inputs)
    plain = run(create_pipeline(), {name: value for name, value in inputs.items() if name != "pair_comparisons"})
    for name in ("preference_pairs_dpo", "preference_pairs_mpo"):
        pd.testing.assert_frame_equal(made[name].load(), plain[name].load())
    won = {row.video_id_a if row.better == "a" else row.video_id_b for row in inputs["pair_comparisons"].itertuples()}
    sifted = PreferencePairs.validate(made["preference_pairs_sift"].load())
    assert 0 < len(sifted) < 40
    assert set(sifted["winner_video_id"]) <= won
    fates = made["pair_selection_report"].load()["strategies"]["sift"]["fates"]
    assert fates == made["pair_counts_sift"].load()
    assert fates["groups"] - fates["groups_without_pair"] == len(sifted)
    assert fates["comparisons"] == 80
    assert fates["comparisons_tied"] == 26


def run(pipeline: Pipeline, inputs: dict[str, Any]) -> DataCatalog:
    """Run a pipeline in memory; the catalog keeps all that it makes."""
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in inputs.items()})
    for name in pipeline.all_outputs():
        catalog[name] = KeptDataset(copy_mode="assign")
    SequentialRunner().run(pipeline, catalog)
    return catalog
