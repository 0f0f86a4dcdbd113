"""What a run needs is looked for before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kedro.framework.project import pipelines
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Node, Pipeline

from vr_pipeline.errors import InputError
from vr_pipeline.generators.config import GeneratorParameters, PreferenceGenerationParameters
from vr_pipeline.hooks.requirements import (
    RequirementsHook,
    hub_models,
    missing_inputs,
    missing_models,
    missing_on_hub,
    model_folders,
)
from vr_pipeline.judges.training.config import JudgeTrainingParameters
from vr_pipeline.rewards.named import RewardModelParameters
from vr_pipeline.vlm.config import JudgeParameters


def join(first: pd.DataFrame, second: pd.DataFrame, generation: Any, judging: Any) -> pd.DataFrame:
    return first


def pipeline() -> Pipeline:
    return Pipeline(
        [
            Node(lambda: None, inputs=None, outputs="made_here", name="make"),
            Node(join, ["supplied", "made_here", "params:generator", "params:judging"], "joined", name="join"),
        ]
    )


def catalog(folder: Path, *, generator: str, judge: str, revision: str | None = None) -> DataCatalog:
    made = DataCatalog.from_config(
        {
            name: {"type": "pandas.CSVDataset", "filepath": str(folder / f"{name}.csv")}
            for name in ("supplied", "made_here", "joined")
        }
    )
    made["params:generator"] = MemoryDataset(
        GeneratorParameters(family="cogvideox", path=generator, revision=revision), copy_mode="assign"
    )
    start = JudgeTrainingParameters(start=JudgeParameters(family="qwen2_vl", path=judge))
    made["params:judging"] = MemoryDataset(start, copy_mode="assign")
    return made


def test_only_what_the_run_does_not_make_is_missed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    entries = catalog(tmp_path, generator=str(tmp_path / "model"), judge=str(tmp_path / "model"))
    assert list(missing_inputs(pipeline(), entries)) == ["supplied"]
    assert missing_models(pipeline(), entries) == {}
    (tmp_path / "supplied.csv").write_text("a\n1\n")
    assert missing_inputs(pipeline(), entries) == {}


def test_model_folders_are_missed_and_names_on_the_hub_are_not(tmp_path: Path) -> None:
    entries = catalog(tmp_path, generator="owner/model", revision="abc", judge=str(tmp_path / "judge"))
    assert missing_models(pipeline(), entries) == {"judging.start.path": str(tmp_path / "judge")}


def test_a_model_that_the_run_itself_makes_is_not_missed(tmp_path: Path) -> None:
    entries = catalog(tmp_path, generator=str(tmp_path / "joined.csv"), judge=str(tmp_path / "made_here.csv"))
    assert missing_models(pipeline(), entries) == {}


def test_models_that_blocks_name_by_a_word_of_the_user_are_looked_for(tmp_path: Path) -> None:
    several = PreferenceGenerationParameters(
        generators={
            "here": {"family": "wan", "path": str(tmp_path)},
            "gone": {"family": "wan", "path": str(tmp_path / "gone")},
            "far": {"family": "wan", "path": "owner/model", "revision": "abc"},
            "off": None,
        }
    )
    folders = dict(model_folders(several, "preference_generators"))
    assert folders == {
        "preference_generators.generators.here.path": str(tmp_path),
        "preference_generators.generators.gone.path": str(tmp_path / "gone"),
    }
    assert dict(hub_models(several, "x")) == {"x.generators.far.path": ("owner/model", "abc")}


def test_adapters_of_judges_are_looked_for_too(tmp_path: Path) -> None:
    judge = JudgeParameters(family="qwen2_vl", path="owner/model", revision="a" * 40, adapter=str(tmp_path / "adapter"))
    assert list(model_folders(judge, "judge")) == [("judge.adapter", str(tmp_path / "adapter"))]


def test_one_message_names_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = catalog(tmp_path, generator=str(tmp_path / "none"), judge=str(tmp_path / "nothing"))
    part = pipeline().only_nodes("join")
    monkeypatch.setattr(pipelines, "_content", {"small": pipeline().only_nodes("make"), "large": pipeline()})
    monkeypatch.setattr(pipelines, "_is_data_loaded", True)
    with pytest.raises(InputError) as caught:
        RequirementsHook().before_pipeline_run({"project_path": str(tmp_path)}, part, entries)
    text = str(caught.value)
    for expected in (
        "supplied (supplied.csv)",
        "made_here (made_here.csv)",
        "generator.path",
        "judging.start",
    ):
        assert expected in text
    assert "'kedro run --pipeline=small' makes made_here" in text
    assert "supply supplied there" in text


def test_the_stage_of_the_pipeline_that_was_asked_for_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Pipeline([Node(lambda: 1, None, "made_here", name="another")])
    content = {"other": other, "stage": pipeline().only_nodes("make"), "system": pipeline()}
    monkeypatch.setattr(pipelines, "_content", content)
    monkeypatch.setattr(pipelines, "_is_data_loaded", True)
    for asked, maker in (("system", "stage"), ("other", "other")):
        run = {"project_path": str(tmp_path), "pipeline_names": [asked]}
        with pytest.raises(InputError, match=f"pipeline={maker}' makes made_here"):
            RequirementsHook().before_pipeline_run(
                run, pipeline().only_nodes("join"), catalog(tmp_path, generator="none", judge="none")
            )


def test_answers_of_people_are_collected_by_annotating(tmp_path: Path) -> None:
    answers = tmp_path / "data" / "01_raw" / "annotations" / "mine" / "clips.jsonl"
    waiting = {"type": "vr_pipeline.datasets.preferences.PreferenceDataset", "filepath": str(answers)}
    entries = DataCatalog.from_config({"human_preferences": waiting})
    part = Pipeline([Node(lambda table: table, "human_preferences", "labels", name="label")])
    with pytest.raises(InputError, match="kedro annotate --env=mine' collects human_preferences"):
        RequirementsHook().before_pipeline_run({"project_path": str(tmp_path), "env": "mine"}, part, entries)


def test_models_on_the_hub_are_looked_for_where_they_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = catalog(tmp_path, generator="owner/model", revision="abc", judge=str(tmp_path))
    monkeypatch.setattr("vr_pipeline.storage.hub.unavailable", lambda models: dict.fromkeys(models, "it is away"))
    assert missing_on_hub(pipeline(), entries) == {}
    loading = Pipeline([node.tag("gpu") for node in pipeline().nodes])
    assert missing_on_hub(loading, entries) == {"generator.path": "owner/model: it is away"}
    with pytest.raises(InputError, match="it is away"):
        RequirementsHook().before_pipeline_run(
            {"project_path": str(tmp_path)}, loading.only_nodes("make", "join"), entries
        )


def test_a_file_that_is_read_as_two_datasets_is_one_thing_to_supply(tmp_path: Path) -> None:
    one = {"type": "pandas.CSVDataset", "filepath": str(tmp_path / "one.csv")}
    entries = DataCatalog.from_config({"preferences": one, "clips": one})
    part = Pipeline([Node(lambda first, second: first, ["preferences", "clips"], "labels", name="label")])
    with pytest.raises(InputError, match=r"missing: clips and preferences \(one\.csv\)\. "):
        RequirementsHook().before_pipeline_run({"project_path": str(tmp_path)}, part, entries)


def test_suggested_commands_mean_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = catalog(tmp_path, generator=str(tmp_path), judge=str(tmp_path))
    monkeypatch.setattr(pipelines, "_content", {"small": pipeline().only_nodes("make")})
    monkeypatch.setattr(pipelines, "_is_data_loaded", True)
    monkeypatch.setattr("sys.argv", ["kedro", "run", "--conf-source", "other conf", "--runner-params=a.b=1"])
    given = {"project_path": str(tmp_path), "env": "mine", "runtime_params": {"x": {"y": 1, "z": "a b"}}}
    with pytest.raises(InputError) as caught:
        RequirementsHook().before_pipeline_run(given, pipeline().only_nodes("join"), entries)
    options = "--env=mine '--params=x.y=1,x.z=a b' '--conf-source=other conf' --runner-params=a.b=1"
    assert f"kedro run {options} --pipeline=small" in str(caught.value)


def test_a_reward_that_a_pipeline_trains_is_said_to_be_trained_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Pipeline([Node(lambda: None, inputs=None, outputs="trained", name="train")])
    score = Pipeline([Node(lambda reward: reward, "params:reward_model", "scores", name="score")])
    entries = DataCatalog.from_config({"trained": {"type": "json.JSONDataset", "filepath": str(tmp_path / "reward")}})
    named = RewardModelParameters.model_validate({"type": "videoreward", "path": str(tmp_path / "reward")})
    entries["params:reward_model"] = MemoryDataset(named, copy_mode="assign")
    monkeypatch.setattr(pipelines, "_content", {"reward_training": train, "scoring": score})
    monkeypatch.setattr(pipelines, "_is_data_loaded", True)
    given = {"project_path": str(tmp_path)}
    with pytest.raises(InputError, match=r"the model of 'reward_model\.path'.*pipeline=reward_training' makes"):
        RequirementsHook().before_pipeline_run(given, score, entries)
    (tmp_path / "reward").mkdir()
    RequirementsHook().before_pipeline_run(given, score, entries)
    none = named.model_copy(update={"type": None})
    entries["params:reward_model"] = MemoryDataset(none, copy_mode="assign")
    assert missing_models(score, entries) == {}


def test_a_reward_on_the_hub_is_no_folder_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"path": "owner/reward", "family": "qwen2_5_vl", "template": "qwen2_5_vl"}
    node = Node(lambda reward: reward, "params:reward_model", "scores", name="score", tags=["gpu"])
    score = Pipeline([node])

    def needs(**more: str) -> tuple[dict[str, str], dict[str, str]]:
        named = RewardModelParameters.model_validate({"type": "unifiedreward", **settings, **more})
        entries = DataCatalog({"params:reward_model": MemoryDataset(named, copy_mode="assign")})
        return missing_models(score, entries), missing_on_hub(score, entries)

    monkeypatch.setattr("vr_pipeline.storage.hub.unavailable", lambda models: dict.fromkeys(models, "it is away"))
    assert needs(revision="0" * 40) == ({}, {"reward_model.path": "owner/reward: it is away"})
    assert needs() == ({"reward_model.path": "owner/reward"}, {})
