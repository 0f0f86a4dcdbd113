"""Pairs of every rule at equal numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from vr_pipeline.errors import InputError
from vr_pipeline.evaluation.ablation.config import AblationParameters
from vr_pipeline.evaluation.ablation.pairs import select_by_rules
from vr_pipeline.pairs.config import PairSelectionParameters

SELECTION = PairSelectionParameters.model_validate(
    {"recipes": {name: {"rule": name, "max_pairs_per_group": None} for name in ("dpo", "mpo")}}
)


@pytest.fixture
def rewards() -> pd.DataFrame:
    random = np.random.default_rng(1)
    table = pd.DataFrame({"video_id": [f"v{n:02}" for n in range(30)], "prompt_id": [f"p{n // 5}" for n in range(30)]})
    table["sample_index"] = np.arange(30) % 5
    table[["dim_a", "dim_b"]] = random.normal(size=(30, 2))
    return table.assign(total=table["dim_a"] + table["dim_b"])


def test_every_rule_is_trained_on_as_many_pairs_those_of_largest_margin(rewards: pd.DataFrame) -> None:
    pairs, counts = select_by_rules(rewards, SELECTION, AblationParameters())
    # By total all 10 pairs of each of 6 prompts; dominance leaves fewer.
    assert counts["dpo"]["n"] == 60
    assert counts["dpo"]["dominating"] == counts["mpo"]["n"] == counts["mpo"]["dominating"] < 60
    assert counts["mpo"]["not_dominating"] == 0
    assert counts["dpo"]["trained_on"] == counts["mpo"]["trained_on"] == len(pairs["dpo"]) == len(pairs["mpo"])
    everything, _ = select_by_rules(rewards, SELECTION, AblationParameters(match_numbers=False))
    assert len(everything["dpo"]) == 60
    left = everything["dpo"].nlargest(len(pairs["dpo"]), "margin")
    assert set(map(tuple, pairs["dpo"][["winner_video_id", "loser_video_id"]].to_numpy())) == set(
        map(tuple, left[["winner_video_id", "loser_video_id"]].to_numpy())
    )


def test_unknown_and_empty_rules_are_named(rewards: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="'best'"):
        select_by_rules(rewards, SELECTION, AblationParameters(pair_rules=["dpo", "best"]))
    opposed = rewards.assign(dim_b=-2.0 * rewards["dim_a"], total=-rewards["dim_a"])
    with pytest.raises(InputError, match="'mpo' selects no pair"):
        select_by_rules(opposed, SELECTION, AblationParameters())
