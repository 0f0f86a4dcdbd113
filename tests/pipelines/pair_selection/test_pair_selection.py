"""The pipeline in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from matplotlib.figure import Figure
from pydantic import ValidationError

from vr_pipeline.checklist import Checklist, load_checklist
from vr_pipeline.errors import InputError
from vr_pipeline.pipelines.pair_selection import create_pipeline
from vr_pipeline.pipelines.pair_selection.nodes import select_mpo_pairs
from vr_pipeline.rewards.config import PairSelectionParameters
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


def test_pairs_and_report(rewards: pd.DataFrame, checklist: Checklist) -> None:
    pipeline = create_pipeline()
    inputs: dict[str, Any] = {
        "rewards": rewards,
        "checklist": checklist,
        "params:pair_selection": PairSelectionParameters(group_size=4),
    }
    catalog = DataCatalog({name: MemoryDataset(value) for name, value in inputs.items()})
    for name in pipeline.all_outputs():
        catalog[name] = KeptDataset(copy_mode="assign")
    SequentialRunner().run(pipeline, catalog)
    report = catalog["pair_selection_report"].load()
    block = (rewards["prompt_id"] + "/" + (rewards["sample_index"] // 4).astype(str)).set_axis(rewards["video_id"])
    for strategy in ("mpo", "dpo"):
        pairs = PreferencePairs.validate(catalog[f"preference_pairs_{strategy}"].load())
        assert report["strategies"][strategy]["n"] == len(pairs)
        assert (pairs["winner_video_id"].map(block) == pairs["loser_video_id"].map(block)).all()
        assert pairs["winner_video_id"].map(block).is_unique  # one pair a group
        fates = report["strategies"][strategy]["fates"]
        assert fates["candidates"] == 40 * 6
        assert fates["groups"] == 40
    assert report["strategies"]["mpo"]["not_dominating"] == 0
    assert report["matched"]["dpo"]["n"] == report["matched"]["mpo"]["n"]
    assert isinstance(catalog["dimension_gaps_plot"].load(), Figure)
    assert isinstance(catalog["pair_fates_plot"].load(), Figure)


def test_rewards_of_another_checklist_are_refused(rewards: pd.DataFrame, checklist: Checklist) -> None:
    with pytest.raises(InputError, match="do not have the same dimensions"):
        select_mpo_pairs(rewards.drop(columns="dim_quality"), checklist, PairSelectionParameters())


def test_typing_errors_in_parameters_stop() -> None:
    with pytest.raises(ValidationError, match="min_margins"):
        PairSelectionParameters(mpo={"min_margins": 0.5})
    with pytest.raises(ValidationError):
        PairSelectionParameters(group_size=1)
