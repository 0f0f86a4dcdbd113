"""Configuration is read once by each session."""

from __future__ import annotations

from pathlib import Path

import pytest
from kedro.config import MissingConfigException

from vr_pipeline.errors import InputError
from vr_pipeline.project.configuration import SteadyConfigLoader, section


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


def test_a_file_that_says_nothing_is_not_a_file_that_is_missing(parameters: Path) -> None:
    assert section(loader(parameters), "catalog") == {}
    assert section(loader(parameters), "catalog", missing={"enabled": False}) == {"enabled": False}
    parameters.with_name("catalog.yml").write_text("")
    assert section(loader(parameters), "catalog", missing={"enabled": False}) == {}


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


def layered(tmp_path: Path, **files: str) -> SteadyConfigLoader:
    for name, text in {
        "base/globals.yml": "data: data\nclips: {fps: 8, lossless: true}",
        "base/catalog.yml": "a: {type: x, filepath: '${globals:data}/a', format: '${globals:clips}'}\nb: {type: y}",
        "base/parameters.yml": "training: {steps: 1, rate: 1, place: '${globals:data}/t'}",
        "real/globals.yml": "clips: {fps: 16}",
        "real/catalog.yml": "b: {type: z, filepath: '${globals:data}/b'}",
        "real/parameters.yml": "training: {steps: 2, rate: 2}",
        "mine/globals.yml": "extends: real\ndata: data/mine",
        "mine/parameters.yml": "training: {rate: 3}",
        **{name.replace("__", "/") + ".yml": text for name, text in files.items()},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    merge = {"parameters": "soft"}
    params = {"training": {"steps": 9}}
    return SteadyConfigLoader(
        str(tmp_path),
        base_env="base",
        env="mine",
        merge_strategy=merge,
        runtime_params=params,
        config_patterns={"runner": ["runner*"]},
    )


def test_an_environment_lies_over_the_one_that_it_extends(tmp_path: Path) -> None:
    read = layered(tmp_path)
    SteadyConfigLoader(str(tmp_path), base_env="base", env="real")  # another session's globals are none of ours
    assert read["parameters"] == {"training": {"steps": 9, "rate": 3, "place": "data/mine/t"}}
    assert read["catalog"] == {
        # What stands in the lowest layer takes the highest layer's value; an entry replaces the whole one below it.
        "a": {"type": "x", "filepath": "data/mine/a", "format": {"fps": 16}},
        "b": {"type": "z", "filepath": "data/mine/b"},
    }
    with pytest.raises(MissingConfigException):
        read["runner"]
    assert (read.env, read.base_env) == ("mine", "base")


@pytest.mark.parametrize(
    ("lower", "told"), [("extends: mine", "which extends it"), ("extends: none", "which does not exist")]
)
def test_what_cannot_be_extended_is_named(tmp_path: Path, lower: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        layered(tmp_path, real__globals=lower)
