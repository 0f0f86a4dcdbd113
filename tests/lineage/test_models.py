"""Registered models: one version a content, the alias on the best of those that were measured alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient

from vr_pipeline.lineage.models import best_version, figure, model_entry, register, versions

MARK = {"model": "policy", "score": ["log:reward", "metrics:mean.judge"], "comparable": ["weights"]}


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> str:
    """A store whose tables exist; making them takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'runs.db'}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).create_experiment("e")
    return uri


@pytest.fixture
def client(database: str, tmp_path: Path) -> MlflowClient:
    import shutil

    copy = tmp_path / "runs.db"
    shutil.copy(database.removeprefix("sqlite:///"), copy)
    return MlflowClient(tracking_uri=f"sqlite:///{copy}", registry_uri=f"sqlite:///{copy}")


def record(md5: str, saved: bool = True, weights: str = "w1", **contents: Any) -> dict[str, Any]:
    hashes = {"policy": md5, "weights": weights}
    entry = model_entry("policy", MARK, hashes, contents, saved)
    return {"code": {"commit": "c"}, "models": [entry] if entry else []}


def run(client: MlflowClient) -> str:
    experiment = client.get_experiment_by_name("e")
    return str(client.create_run(experiment.experiment_id).info.run_id)


def best(client: MlflowClient) -> str:
    return str(client.get_registered_model("policy").aliases["best"])


def validated(reward: float) -> dict[str, Any]:
    return {"log": pd.DataFrame({"reward": [None, reward - 1, reward]})}


def evaluated(mean: float) -> dict[str, Any]:
    return {"metrics": {"mean": {"judge": mean}}}


def test_figures_are_found_in_tables_and_documents():
    assert figure(pd.DataFrame({"a": [1.0, 3.0, 2.0]}), "a") == 3.0
    assert figure({"a": {"b": 2}}, "a.b") == 2.0
    for content, place in (
        (pd.DataFrame({"a": [float("nan")]}), "a"),
        (pd.DataFrame({"a": [1.0]}), "b"),
        ({"a": {"b": None}}, "a.b"),
        ({"a": 1}, "a.b"),
        ({"a": True}, "a"),
        ({"a": float("inf")}, "a"),
    ):
        assert figure(content, place) is None, (content, place)


def test_the_first_choice_of_a_score_counts():
    first = model_entry("policy", MARK, {"policy": "m"}, {**validated(2.0), **evaluated(9.0)}, True)
    second = model_entry("policy", MARK, {"policy": "m"}, evaluated(9.0), True)
    assert first is not None
    assert second is not None
    assert (first["score"], first["source"], first["choice"]) == (2.0, "log:reward", 0)
    assert (second["score"], second["source"], second["choice"]) == (9.0, "metrics:mean.judge", 1)
    assert first["ruler"] != second["ruler"]
    assert model_entry("policy", MARK, {}, {}, True) is None
    assert model_entry("policy", MARK, {"policy": "m"}, {}, False) is None


def test_one_version_a_content_and_best_follows_the_score(client):
    assert register(client, run(client), record("a", **validated(1.0)), {"pairs": "p1"}) == ["policy/1"]
    assert register(client, run(client), record("b", **validated(3.0)), {}) == ["policy/2"]
    assert register(client, run(client), record("c", **validated(2.0)), {}) == ["policy/3"]
    assert best(client) == "2"
    # The same bytes again are no new version, whoever made them.
    assert register(client, run(client), record("a", **validated(1.0)), {}) == ["policy/1"]
    found = versions(client, "policy")
    assert [version.tags["dvc.md5"] for version in found] == ["a", "b", "c"]
    assert found[0].tags["input.pairs"] == "p1"
    assert found[0].tags["git.commit"] == "c"


def test_scores_by_another_ruler_are_not_compared(client):
    register(client, run(client), record("a", weights="w1", **validated(5.0)), {})
    register(client, run(client), record("b", weights="w2", **validated(1.0)), {})
    assert best(client) == "2", "the newest ruler counts"
    first, second = versions(client, "policy")
    assert best_version([first, second], first.tags["score.ruler"]).version == first.version
    assert best_version([first], "another") is None


def test_a_later_evaluation_scores_a_version_made_by_another_run(client):
    register(client, run(client), record("a"), {})
    register(client, run(client), record("b"), {})
    assert "best" not in client.get_registered_model("policy").aliases
    assert register(client, run(client), record("a", saved=False, **evaluated(0.5)), {}) == ["policy/1"]
    assert best(client) == "1"
    # What no run has registered cannot be scored.
    assert register(client, run(client), record("z", saved=False, **evaluated(0.5)), {}) == []


def test_a_validated_reward_stays_when_the_evaluation_comes(client):
    register(client, run(client), record("a", **validated(1.0)), {})
    register(client, run(client), record("a", saved=False, **evaluated(0.2)), {})
    [version] = versions(client, "policy")
    assert version.tags["score"] == "1.0"
    assert version.tags["score.source"] == "log:reward"
