"""The picture of the pipelines that Kedro-Viz draws: nodes, edges, layers, groups, descriptions."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kedro.pipeline import Pipeline

from vr_pipeline.pipeline_registry import register_pipelines
from vr_pipeline.pipelines.steps import description

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["raw", "intermediate", "primary", "feature", "model_input", "models", "model_output", "reporting"]


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Path:
    """The built page of a copy of the project's configuration; built there, because it goes to the working folder."""
    folder = tmp_path_factory.mktemp("viz")
    (folder / "src").mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copytree(ROOT / "data" / "01_raw", folder / "data" / "01_raw")
    command = [sys.executable, "-m", "kedro", "graph", "--build", "build"]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "DO_NOT_TRACK": "1"}, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "build" / "index.html").is_file()
    return folder / "build" / "api"


def graph(build: Path, name: str) -> dict[str, Any]:
    return json.loads((build / "pipelines" / name).read_text())


def test_every_pipeline_can_be_chosen(build):
    names = {entry["id"] for entry in json.loads((build / "main").read_text())["pipelines"]}
    assert names == set(register_pipelines())


@pytest.mark.parametrize("name", sorted(register_pipelines()))
def test_nodes_and_edges_are_those_of_the_pipeline(build, name):
    page, pipeline = graph(build, name), register_pipelines()[name]
    names = {node["id"]: node["name"] for node in page["nodes"] if node["type"] != "modularPipeline"}
    kinds = {kind: {n["name"] for n in page["nodes"] if n["type"] == kind} for kind in ("task", "data", "parameters")}
    assert kinds["task"] == {node.short_name for node in pipeline.nodes}
    parameters = {dataset for dataset in pipeline.datasets() if dataset.startswith("params:")}
    assert kinds["parameters"] == parameters
    assert kinds["data"] == pipeline.datasets() - parameters
    drawn = {
        (names[edge["source"]], names[edge["target"]])
        for edge in page["edges"]
        if edge["source"] in names and edge["target"] in names
    }
    expected = {(dataset, node.short_name) for node in pipeline.nodes for dataset in node.inputs}
    expected |= {(node.short_name, dataset) for node in pipeline.nodes for dataset in node.outputs}
    assert drawn == expected


def test_layers_stand_in_their_order(build):
    for name in register_pipelines():
        # Empty if the layers of the catalog contradict the order of the nodes.
        assert graph(build, name)["layers"], name
    page = graph(build, "mpo_dpo")
    assert page["layers"] == LAYERS
    assert json.loads((build / "main").read_text())["layers"] == LAYERS
    layers = {node["name"]: node.get("layer") for node in page["nodes"]}
    assert layers["raw_prompts"] == "raw"
    assert layers["videos"] == "primary"
    assert layers["policy_mpo"] == "models"
    assert layers["evaluation_report"] == "reporting"


def test_the_whole_is_grouped_by_pipeline(build):
    groups = graph(build, "mpo_dpo")["modular_pipelines"]
    registry = register_pipelines()
    stages = {node.namespace for node in registry["mpo_dpo"].nodes}
    assert set(groups) == stages | {"__root__"}
    for stage in stages:
        drawn = {child["id"] for child in groups[stage]["children"] if child["type"] == "task"}
        assert len(drawn) == len(registry[stage].nodes)


def test_the_first_view_is_small_and_ends_in_the_results(build):
    page = graph(build, "mpo_dpo")
    kinds = {node["id"]: node["type"] for node in page["nodes"]}
    names = {node["id"]: node["name"] for node in page["nodes"]}
    shown = [child["id"] for child in page["modular_pipelines"]["__root__"]["children"]]
    data = {names[child] for child in shown if kinds.get(child) == "data"}
    assert len(data) + 7 <= 45, sorted(data)
    assert {"evaluation_report", "filtered_prompts", "videos", "policy_mpo", "reward_weights"} <= data
    # What nothing needs further stands inside the box of its pipeline: the report draws its pictures itself.
    assert not {name for name in data if name.endswith("_plot")}
    inside = {names[child["id"]] for child in page["modular_pipelines"]["weight_regression"]["children"]}
    assert "reward_weights_plot" in inside


def test_a_run_of_a_group_has_all_its_results():
    for pipeline in register_pipelines().values():
        plain = Pipeline(pipeline.nodes)
        for group in {node.namespace for node in pipeline.nodes}:
            run = pipeline.filter(node_namespaces=[group])
            assert run.outputs() == plain.only_nodes_with_namespaces([group]).outputs()
            assert run.nodes == pipeline.only_nodes_with_namespaces([group]).nodes


def test_described_nodes_travel_to_other_processes():
    for node in register_pipelines()["mpo_dpo"].nodes:
        assert pickle.loads(pickle.dumps(node)).preview() == node.preview()


def details(build: Path, name: str) -> dict[str, Any]:
    page = graph(build, "__default__")
    [identifier] = {node["id"] for node in page["nodes"] if node["name"] == name and node["type"] in {"task", "data"}}
    return json.loads((build / "nodes" / identifier).read_text())


def test_nodes_are_described_by_their_functions(build):
    for node in register_pipelines()["mpo_dpo"].nodes:
        text = description(node.func)
        assert text, node.name
        # Two pipelines may have nodes of one short name; Kedro-Viz tells nodes apart by this hash.
        identifier = hashlib.sha1(str(node).encode(), usedforsecurity=False).hexdigest()[:8]
        assert json.loads((build / "nodes" / identifier).read_text())["preview"]["content"] == text


def test_given_data_have_previews(build):
    questions = details(build, "checklist")
    assert questions["preview_type"] == "TablePreview"
    assert questions["preview"]["columns"][-1] == "text"
    assert details(build, "raw_prompts")["preview"]["data"]
    assert details(build, "human_preferences")["preview"]["data"]
    clips = details(build, "preference_videos")
    assert clips["preview_type"] == "ImagePreview"
    assert base64.b64decode(clips["preview"]).startswith(b"\x89PNG")


def test_nothing_tells_of_the_machine_or_asks_another(build):
    folder = build.parent
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in {"", ".html", ".js", ".css", ".json"}:
            text = path.read_text(encoding="utf-8")
            assert str(folder.parent) not in text, path
            assert str(ROOT / "src") not in text, path
            assert "fonts.googleapis.com" not in text, path
    assert details(build, "generate_videos")["filepath"] == "src/vr_pipeline/pipelines/video_generation/nodes.py"
    assert details(build, "raw_prompts")["filepath"] == "data/01_raw/prompts.csv"
