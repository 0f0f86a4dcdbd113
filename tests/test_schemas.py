"""Schemas: a valid table of each passes, and what each forbids does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest

from vr_pipeline import schemas

VALID: dict[str, dict[str, Any]] = {
    "FilteredPrompts": {"prompt_id": "a", "prompt": "a ball", "source": "file", "split": "train"},
    "PromptFilterDecisions": {
        "prompt_id": "a",
        "step": "rouge",
        "kept": False,
        "reason": "like b",
        "nearest_prompt_id": "b",
        "similarity": 0.8,
    },
    "VideoIndex": {
        "video_id": "v",
        "prompt_id": "a",
        "prompt": "a ball",
        "sample_index": 0,
        "seed": 2**63 - 1,
        "generator": "g",
        "path": "v.mp4",
        "num_frames": 8,
        "fps": 8.0,
        "height": 16,
        "width": 16,
        "sha256": "0",
        "status": "ok",
        "error": "",
    },
    "ChecklistAnswers": {
        "video_id": "v",
        "question_id": "q",
        "p_yes": 0.5,
        "answer": False,
        "outside_mass": 0.0,
        "gated": False,
    },
    "HumanPreferences": {
        "pair_id": "x",
        "prompt": "a ball",
        "video_id_a": "v",
        "video_id_b": "w",
        "preference": "tie",
        "annotator": "n",
        "source": "s",
    },
    "AblationTrainings": {
        "policy": "mpo.mapo.seed0",
        "pairs": "mpo",
        "objective": "mapo",
        "seed": 0,
        "steps": 100,
        "error": "",
        "loss": 0.5,
        "implicit_accuracy": 0.7,
        "winner_change": 0.1,
        "loser_change": 0.2,
        "gradient_norm": 1.0,
    },
    "AblationGains": {
        "pairs": "mpo",
        "objective": "mapo",
        "source": "judge",
        "dimension": "total",
        "against": "original",
        "original": 1.0,
        "reward": 2.0,
        "gain": 1.0,
        "ci_low": 0.5,
        "ci_high": 1.5,
        "lowest_seed": 0.9,
        "highest_seed": 1.1,
        "seeds": 3,
        "prompts": 16,
    },
    "Rewards": {"video_id": "v", "prompt_id": "a", "total": 1.0, "dim_quality": 1.0},
    "Comparisons": {
        "prompt_id": "a",
        "video_id_a": "v",
        "video_id_b": "w",
        "p_a": 0.6,
        "p_b": 0.3,
        "p_tie": 0.1,
        "position_bias": -0.05,
        "outside_mass": 0.01,
        "better": "a",
        "ranker": "r",
    },
    "PreferencePairs": {
        "prompt_id": "a",
        "winner_video_id": "v",
        "loser_video_id": "w",
        "margin": 0.1,
        "dominates": True,
        "dim_quality_gap": 0.1,
    },
    "TrainingLog": {"step": 1, "loss": 0.7},
    "PreferenceRewardReport": {
        "dimension": "visual",
        "n": 0,
        "ties": 0,
        "prompts": 0,
        "accuracy_with_ties": float("nan"),
        "accuracy_with_ties_low": float("nan"),
        "accuracy_with_ties_high": float("nan"),
        "accuracy_without_ties": 0.7,
        "accuracy_without_ties_low": 0.6,
        "accuracy_without_ties_high": 0.8,
        "best_accuracy_with_ties": 0.7,
        "always_tie": 0.2,
        "log_likelihood": -0.6,
        "tie_threshold": 0.1,
        "calibration_error": 0.05,
    },
    "LatentRewardPairs": {
        "pair_id": "p",
        "prompt_id": "a",
        "prompt": "a ball",
        "video_id_a": "v",
        "video_id_b": "w",
        "sha256_a": "0",
        "sha256_b": "1",
        "unit": "a",
        "split": "test",
        "label_motion": float("nan"),
    },
    "LatentRewardReport": {
        "dimension": "motion",
        "time_from": 0.9,
        "time_to": 1.0,
        "noise_deviation": 1.0,
        "n": 3,
        "prompts": 1,
        "accuracy": 0.7,
        "accuracy_low": float("nan"),
        "accuracy_high": float("nan"),
        "accuracy_apart": 0.5,
        "accuracy_apart_low": float("nan"),
        "accuracy_apart_high": float("nan"),
    },
    "PreferenceRewardReliability": {
        "dimension": "visual",
        "outcome": "tie",
        "low": 0.9,
        "high": 1.0,
        "n": 3,
        "stated": 0.95,
        "observed": 1.0,
    },
}

INVALID = [
    ("FilteredPrompts", {"split": "held out"}),
    ("FilteredPrompts", {"prompt": ""}),
    ("PromptFilterDecisions", {"similarity": 1.1}),
    ("VideoIndex", {"status": "broken"}),
    ("VideoIndex", {"num_frames": -1}),
    ("VideoIndex", {"seed": "none"}),
    ("ChecklistAnswers", {"p_yes": 1.2}),
    ("ChecklistAnswers", {"p_yes": float("nan")}),
    ("ChecklistAnswers", {"outside_mass": -0.1}),
    ("HumanPreferences", {"preference": "same"}),
    ("HumanPreferences", {"preference_motion": "same"}),
    ("HumanPreferences", {"grade_a_motion": float("inf")}),
    ("Rewards", {"total": float("nan")}),
    ("Rewards", {"dim_quality": float("nan")}),
    ("Comparisons", {"better": "first"}),
    ("Comparisons", {"p_tie": float("nan")}),
    ("Comparisons", {"video_id_b": "v"}),
    ("PreferencePairs", {"margin": 0.0}),
    ("PreferencePairs", {"loser_video_id": "v"}),
    ("PreferenceRewardReport", {"log_likelihood": 0.1}),
    ("PreferenceRewardReport", {"accuracy_without_ties": 1.2}),
    ("LatentRewardPairs", {"label_motion": 0.5}),
    ("LatentRewardPairs", {"split": "held out"}),
    ("LatentRewardReport", {"accuracy": 1.2}),
    ("LatentRewardReport", {"time_to": 1.1}),
    ("PreferenceRewardReliability", {"outcome": "loss"}),
    ("PreferenceRewardReliability", {"n": 0}),
    ("TrainingLog", {"step": 0}),
    ("TrainingLog", {"loss": float("nan")}),
]


def table(name: str, **changes: Any) -> pd.DataFrame:
    return pd.DataFrame([VALID[name] | changes])


@pytest.mark.parametrize("name", sorted(VALID))
def test_a_valid_table_passes_with_columns_of_the_users_own(name: str) -> None:
    schema = getattr(schemas, name)
    checked = schema.validate(table(name, own_column="kept"))
    assert checked["own_column"].tolist() == ["kept"]
    # Empty tables are tables: nothing was made, nothing is wrong.
    assert schema.validate(checked.iloc[:0]).empty


@pytest.mark.parametrize(("name", "change"), INVALID)
def test_what_a_schema_forbids_is_rejected(name: str, change: dict[str, Any]) -> None:
    with pytest.raises((pa.errors.SchemaError, pa.errors.SchemaErrors)):
        getattr(schemas, name).validate(table(name, **change))


@pytest.mark.parametrize("name", sorted(VALID))
def test_a_missing_column_is_rejected(name: str) -> None:
    required = next(iter(VALID[name]))
    with pytest.raises((pa.errors.SchemaError, pa.errors.SchemaErrors), match=required):
        getattr(schemas, name).validate(table(name).drop(columns=required))


@pytest.mark.parametrize(("name", "key"), [("FilteredPrompts", "prompt_id"), ("VideoIndex", "video_id")])
def test_identifiers_do_not_repeat(name: str, key: str) -> None:
    twice = pd.concat([table(name), table(name)], ignore_index=True)
    with pytest.raises((pa.errors.SchemaError, pa.errors.SchemaErrors), match=key):
        getattr(schemas, name).validate(twice)


def test_seeds_keep_all_of_their_63_bits() -> None:
    checked = schemas.VideoIndex.validate(table("VideoIndex"))
    assert int(checked["seed"].iloc[0]) == 2**63 - 1


def test_every_table_has_a_sentence_that_says_what_it_holds() -> None:
    models = [
        value
        for value in vars(schemas).values()
        if isinstance(value, type) and issubclass(value, schemas.Table) and value is not schemas.Table
    ]
    assert len(models) > 10
    assert all(model.__doc__ and model.__doc__.strip().endswith(".") for model in models)


@pytest.mark.parametrize("column", ["total", "dim_looks"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rewards_are_finite(column: str, value: float) -> None:
    table = pd.DataFrame({"video_id": ["a", "b"], "prompt_id": "p", "total": [1.0, 2.0], "dim_looks": [1.0, 2.0]})
    schemas.Rewards.validate(table)
    table.loc[1, column] = value
    with pytest.raises(pa.errors.SchemaError):
        schemas.Rewards.validate(table)
