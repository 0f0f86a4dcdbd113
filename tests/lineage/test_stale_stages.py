"""Every setting that changes what a stage is given makes that stage stale, and no other one."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLACES = {"filepath", "path", "metadata"}


def leaves(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in parts:
        yield from leaves(inner, (*keys, key))
    if not isinstance(value, dict | list):
        yield keys, value


def with_leaf(content: Any, keys: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(content)
    place = changed
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return changed


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"{value}x"


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    from vr_pipeline.lineage.project import FURTHER, parts_of
    from vr_pipeline.pipeline_registry import register_pipelines

    registered = register_pipelines()
    return {**parts_of(registered), **{name: registered[name] for name in FURTHER}}


def given(pipelines: dict[str, Any], conf: Path, environment: str, catalog: bool) -> dict[str, Any]:
    """What each stage gets by the configuration: its blocks of parameters and, if asked, how its files are written."""
    from vr_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    loader = CONFIG_LOADER_CLASS(str(conf), env=environment, **CONFIG_LOADER_ARGS)
    parameters = loader["parameters"]
    entries = loader["catalog"] if catalog else {}
    found = {}
    for name, pipeline in pipelines.items():
        blocks = [one.removeprefix("params:") for one in pipeline.inputs() if one.startswith("params:")]
        written = {
            one: {key: value for key, value in entries[one].items() if key not in PLACES}
            for one in pipeline.datasets()
            if one in entries
        }
        found[name] = ({block: parameters[block] for block in blocks}, written)
    return found


@pytest.mark.parametrize(("environment", "own"), [("base", ["base"]), ("cogvideox_5b", ["cogvideox", "cogvideox_5b"])])
def test_each_setting_makes_the_stages_that_take_it_stale(
    environment: str, own: list[str], pipelines: dict[str, Any], tmp_path: Path
) -> None:
    from vr_pipeline.lineage.project import open_project
    from vr_pipeline.project.configuration import layers

    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    stages = open_project(ROOT, environment).stages
    checked = 0
    for layer in layers(conf, environment):
        for file in sorted((conf / layer).rglob("*.yml")):
            name = file.relative_to(tmp_path).as_posix()
            is_global = file.name == "globals.yml"
            if not is_global and (layer not in own or "parameters" not in file.relative_to(conf / layer).parts[0]):
                continue
            text = file.read_text()
            content = json.loads(json.dumps(yaml.safe_load(text)))  # without aliases
            before = given(pipelines, conf, environment, is_global)
            for keys, value in leaves(content):
                if keys == ("extends",):
                    continue
                dotted = ".".join(str(key) for key in keys)
                file.write_text(yaml.safe_dump(with_leaf(content, keys, another(value))))
                after = given(pipelines, conf, environment, is_global)
                changed = {stage for stage in stages if before[stage] != after[stage]}
                stale = {
                    stage
                    for stage, one in stages.items()
                    if any(f"{dotted}.".startswith(f"{key}.") for key in one.parameters.get(name, ()))
                }
                assert changed <= stale, f"{name}: {dotted}"
                # What a layer above overrides changes nothing and may be followed all the same.
                assert stale == changed or not changed, f"{name}: {dotted}"
                checked += 1
            file.write_text(text)
    assert checked > 20
