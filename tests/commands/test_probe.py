"""kedro probe: estimate, table, picture, advice."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from toy_training import Toy, make_toy
from vr_pipeline.commands import probe as command_line
from vr_pipeline.training.config import DpoTrainingParameters
from vr_pipeline.training.probe.measure import Probe


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("model") / "micro")


@pytest.fixture
def folder(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    parameters = DpoTrainingParameters(training=toy.parameters())
    made = Probe(toy.data, toy.settings, parameters, tmp_path)
    monkeypatch.setattr(command_line, "_open", lambda env, recipe: (made, parameters, recipe or "mpo", tmp_path))
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command_line.probe, arguments)


def test_a_probe_prints_a_table_keeps_a_picture_and_advises(folder: Path) -> None:
    result = run("--steps", "3", "--learning-rates", "1e-3,100", "--betas", "10")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("2 learning rates x 1 betas, 3 steps each: about ")
    document = json.loads((folder / "probe.json").read_text())
    assert [cell["learning_rate"] for cell in document["cells"]] == [1e-3, 100.0]
    assert document["cells"][1]["trouble"]
    assert document["advice"]["learning_rate"] == 1e-3
    assert "recipes: {mpo: {learning_rate: 0.001, beta: 10}}" in result.output
    with Image.open(folder / "probe.png") as picture:
        assert min(picture.size) > 200
    assert (folder / "probe.svg").read_text().lstrip().startswith("<?xml")


def test_the_grid_is_cut_to_the_time_and_json_is_one_document(folder: Path) -> None:
    result = run("--json", "--steps", "4", "--minutes", "0.000001")
    assert result.exit_code == 0, result.output
    assert "the grid is smaller than" in result.stderr
    assert len(json.loads(result.stdout)["cells"]) == 1


def test_numbers_that_are_none_are_rejected(folder: Path) -> None:
    for given in ("1e-3,fast", "0", "-1"):
        result = run("--learning-rates", given)
        assert result.exit_code == 2
        assert "learning-rates" in result.output


def test_pairs_that_are_not_prepared_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    catalog = SimpleNamespace(exists=lambda name: name != "latents")
    context = SimpleNamespace(catalog=catalog)
    monkeypatch.setattr("vr_pipeline.project.folder.project_context", lambda env: context)
    result = run("--env", "mine")
    assert result.exit_code == 1
    assert "latents" in result.output
    assert "kedro run --env=mine --to-outputs=" in result.output
