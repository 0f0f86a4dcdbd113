"""The picture of the pipelines that ``kedro viz build`` makes: nodes, edges, layers, groups."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vr_pipeline.pipeline_registry import register_pipelines

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["raw", "intermediate", "primary", "feature", "model_input", "models", "model_output", "reporting"]


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Path:
    """The built page of a copy of the project's configuration; built there, because it goes to the working folder."""
    folder = tmp_path_factory.mktemp("viz")
    (folder / "src").mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "conf", folder / "conf")
    command = [sys.executable, "-m", "kedro", "viz", "build"]
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
    page = graph(build, "mpo_dpo")
    # Empty if the layers of the catalog contradict the order of the nodes.
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
