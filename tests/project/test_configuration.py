"""Configuration is read once by each session."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.config import MissingConfigException

from vr_pipeline.project.configuration import SteadyConfigLoader


@pytest.fixture
def parameters(tmp_path: Path) -> Path:
    (tmp_path / "base").mkdir()
    (tmp_path / "local").mkdir()
    path = tmp_path / "base" / "parameters.yml"
    path.write_text("training: {steps: 5, rates: [0.1]}\n")
    return path


def loader(parameters: Path, **options: object) -> SteadyConfigLoader:
    return SteadyConfigLoader(str(parameters.parents[1]), base_env="base", default_run_env="local", **options)


def test_a_file_edited_meanwhile_is_seen_by_the_next_session(parameters: Path) -> None:
    session = loader(parameters, runtime_params={"training": {"steps": 7}}, merge_strategy={"parameters": "soft"})
    assert session["parameters"]["training"] == {"steps": 7, "rates": [0.1]}
    parameters.write_text("training: {steps: 5, rates: [0.2]}\n")
    assert session["parameters"]["training"] == {"steps": 7, "rates": [0.1]}
    assert loader(parameters)["parameters"]["training"] == {"steps": 5, "rates": [0.2]}


def test_whoever_changes_what_was_read_changes_a_copy(parameters: Path) -> None:
    session = loader(parameters)
    session["parameters"]["training"]["rates"].append(9.0)
    assert session["parameters"]["training"]["rates"] == [0.1]


def test_what_is_put_in_counts_and_what_is_missing_is_told(parameters: Path) -> None:
    session = loader(parameters)
    with pytest.raises(MissingConfigException):
        session["catalog"]
    assert session["parameters"]
    session["parameters"] = {"training": {"steps": 1}}
    assert session["parameters"] == {"training": {"steps": 1}}
    parameters.with_name("catalog.yml").write_text("words: {type: text.TextDataset, filepath: words.txt}\n")
    assert set(session["catalog"]) == {"words"}


ODD = ("[x]", "a*b?", "100%", "${x}", "a b", "-a", "ü漢", "q'q", "new\nline", "{a}", "a#b;c", "~a", ".hidden")


@pytest.mark.parametrize("name", ODD)
def test_the_folder_of_the_configuration_has_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").mkdir()  # what a pattern could take for it
    source = tmp_path / name / "conf"
    for file, text in {
        "base/parameters.yml": "a: 1",
        "base/parameters/b.yml": "b: 2",
        "base/more/parameters_c.yml": "c: 3",
        "local/parameters.yml": "a: 4",
    }.items():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_text(text)
    read = SteadyConfigLoader(str(source), base_env="base", default_run_env="local")
    assert dict(read["parameters"]) == {"a": 4, "b": 2, "c": 3}
