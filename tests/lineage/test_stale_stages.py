"""Every setting that changes what a stage is given makes that stage stale, and no other one."""

from __future__ import annotations

import copy
import itertools
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


def given(pipelines: dict[str, Any], conf: Path, environment: str, catalog: bool) -> tuple[dict[str, Any], Any]:
    """The blocks of parameters and, if asked, how the files of each stage are written."""
    from vr_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    loader = CONFIG_LOADER_CLASS(str(conf), env=environment, **CONFIG_LOADER_ARGS)
    entries = loader["catalog"] if catalog else {}
    written = {
        name: {
            one: {key: value for key, value in entries[one].items() if key not in PLACES}
            for one in pipeline.datasets()
            if one in entries
        }
        for name, pipeline in pipelines.items()
    }
    return loader["parameters"], written


def rounds(files: list[Path]) -> Iterator[list[tuple[Path, Any, tuple[Any, ...], Any]]]:
    """A setting of each file at a time, until all have come: file, its content, keys and value of the setting.

    What a change of one file does is seen in the blocks of that file, since files of parameters do not refer to each
    other; globals, which may change any block, are alone in their rounds.
    """
    contents = {file: json.loads(json.dumps(yaml.safe_load(file.read_text()))) for file in files}  # without aliases
    settings = {
        file: [(file, content, *leaf) for leaf in leaves(content) if leaf[0] != ("extends",)]
        for file, content in contents.items()
    }
    for file in files:
        if file.name == "globals.yml":
            yield from ([one] for one in settings.pop(file))
        else:
            assert "${" not in file.read_text().replace("${globals:", ""), file
    yield from ([one for one in row if one is not None] for row in itertools.zip_longest(*settings.values()))


@pytest.mark.parametrize(("environment", "own"), [("base", ["base"]), ("cogvideox_5b", ["cogvideox", "cogvideox_5b"])])
def test_each_setting_makes_the_stages_that_take_it_stale(
    environment: str, own: list[str], pipelines: dict[str, Any], tmp_path: Path
) -> None:
    from vr_pipeline.lineage.project import open_project
    from vr_pipeline.project.configuration import layers

    conf = tmp_path / "conf"
    shutil.copytree(ROOT / "conf", conf)
    stages = open_project(ROOT, environment).stages
    taken = {
        name: {one.removeprefix("params:") for one in pipelines[name].inputs() if one.startswith("params:")}
        for name in stages
    }
    blocks, written = given(pipelines, conf, environment, catalog=True)
    checked = 0
    for layer in layers(conf, environment):
        files = [
            file
            for file in sorted((conf / layer).rglob("*.yml"))
            if file.name == "globals.yml" or (layer in own and "parameters" in file.relative_to(conf / layer).parts[0])
        ]
        texts = {file: file.read_text() for file in files}
        for row in rounds(files):
            is_global = row[0][0].name == "globals.yml"
            for file, content, keys, value in row:
                file.write_text(yaml.safe_dump(with_leaf(content, keys, another(value))))
            blocks_now, written_now = given(pipelines, conf, environment, is_global)
            differing = {block for block in blocks if blocks[block] != blocks_now.get(block)}
            assert is_global or differing <= {keys[0] for _, _, keys, _ in row}
            for file, _, keys, _ in row:
                name, dotted = file.relative_to(tmp_path).as_posix(), ".".join(str(key) for key in keys)
                here = differing if is_global else differing & {keys[0]}
                changed = {
                    stage
                    for stage in stages
                    if taken[stage] & here or (is_global and written[stage] != written_now[stage])
                }
                stale = {
                    stage
                    for stage, one in stages.items()
                    if any(f"{dotted}.".startswith(f"{key}.") for key in one.parameters.get(name, ()))
                }
                assert changed <= stale, f"{name}: {dotted}"
                # What a layer above overrides changes nothing and may be followed all the same.
                assert stale == changed or not changed, f"{name}: {dotted}"
                checked += 1
                file.write_text(texts[file])
    assert checked > 20
