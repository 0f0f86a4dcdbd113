"""Stages derived from pipelines, catalog and parameters; what cannot be followed is rejected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kedro.pipeline import Node, Pipeline

from vr_pipeline.errors import InputError
from vr_pipeline.lineage.project import FURTHER, ProjectStages, check_places, parts_of
from vr_pipeline.lineage.stages import Configuration, Output, Stage, curves, derive_stages, to_dvc

MANIFEST = "vr_pipeline.datasets.manifest.ManifestFolderDataset"


def make(words: str, parameters: dict) -> tuple:
    return words, parameters


def read(items: Any, rate: float) -> tuple:
    return items, rate


FIRST = Pipeline([Node(make, ["words", "params:first"], ["items", "log"], name="make")])
SECOND = Pipeline(
    [
        Node(read, ["items", "params:second.rate"], ["note", "scores"], name="read"),
        Node(lambda note: note, "note", "picture", name="draw"),
    ]
)
CATALOG: dict[str, dict[str, Any]] = {
    "words": {"type": "text.TextDataset", "filepath": "data/words.txt"},
    "items": {"type": MANIFEST, "path": "data/items", "format": {"type": "json"}},
    "log": {
        "type": "pandas.CSVDataset",
        "filepath": "data/log.csv",
        "metadata": {"dvc": {"curves": {"x": "step", "y": ["loss"]}}},
    },
    "scores": {
        "type": "json.JSONDataset",
        "filepath": "data/scores.json",
        "metadata": {"mlflow": {"metrics": True}, "dvc": {"cache": False}},
    },
    "picture": {"type": "matplotlib.MatplotlibDataset", "filepath": "data/picture.png", "save_args": {"dpi": 9}},
}
PARAMETERS = {
    "conf/base/parameters/first.yml": {"first": {"seed": 1, "model": {"path": "data/models/tiny", "family": "tiny"}}},
    "conf/base/parameters/second.yml": {"second": {"rate": 0.5, "other": 1}},
}


def stages_of(
    catalog: dict[str, Any] | None = None,
    parameters: dict[str, Any] | None = None,
    pipelines: dict[str, Pipeline] | None = None,
    asked: list[tuple] | None = None,
    constants: frozenset[str] = frozenset(),
) -> dict[str, Stage]:
    catalog = CATALOG if catalog is None else catalog
    files = PARAMETERS if parameters is None else parameters
    merged = {name: value for content in files.values() for name, value in content.items()}

    def sources(name: str, pipeline: Pipeline, modules: list[str], words: list[str]) -> list[str]:
        if asked is not None:
            asked.append((name, modules, words))
        return [f"src/{name}.py"]

    configuration = Configuration("base", catalog, constants, merged, {"conf/base/catalog.yml": catalog}, files)
    return derive_stages(pipelines or {"first": FIRST, "second": SECOND}, configuration, sources, lambda path: True)


def test_a_stage_has_all_that_dvc_needs():
    asked: list[tuple] = []
    stages = stages_of(asked=asked)
    content = to_dvc(stages.values(), curves(CATALOG, stages.values()))
    assert yaml.safe_load(yaml.safe_dump(content)) == {
        "stages": {
            "first": {
                "cmd": "sh conf/kedro.sh run --env=base --pipeline=first",
                "deps": ["data/words.txt", "data/models/tiny", "src/first.py"],
                "params": [
                    {"conf/base/catalog.yml": ["items.format"]},
                    {"conf/base/parameters/first.yml": ["first"]},
                ],
                "outs": [{"data/items": {"persist": True}}, "data/log.csv"],
            },
            "second": {
                "cmd": "sh conf/kedro.sh run --env=base --pipeline=second",
                "deps": ["data/items", "src/second.py"],
                "params": [
                    {"conf/base/catalog.yml": ["items.format", "picture.save_args"]},
                    {"conf/base/parameters/second.yml": ["second.rate"]},
                ],
                "metrics": [{"data/scores.json": {"cache": False}}],
                "plots": ["data/picture.png"],
            },
        },
        "plots": [{"loss": {"x": "step", "y": {"data/log.csv": "loss"}}}],
    }
    # Dataset classes are source too, and tables of modules are followed at the names that parameters hold.
    assert asked[0][0] == "first"
    assert MANIFEST in asked[0][1]
    assert "tiny" in asked[0][2]


def test_a_folder_of_images_is_an_input_beside_the_prompts_that_name_them():
    prompts = CATALOG["words"] | {"image_folder": "data/images"}
    stages = stages_of(catalog=CATALOG | {"words": prompts})
    assert stages["first"].inputs == {"words": "data/words.txt", "words.images": "data/images"}
    assert {"data/words.txt", "data/images"} <= set(stages["first"].dependencies)
    assert "data/images" not in stages["second"].dependencies
    with pytest.raises(InputError, match="words"):
        stages_of(catalog=CATALOG | {"words": prompts | {"image_folder": "../images"}})


def test_models_that_are_not_there_and_entries_that_no_file_holds_are_passed_over():
    """A model on a hub has a name that looks like a path; an entry made from a pattern has no key of its own."""
    files = {"conf/base/catalog.yml": {name: entry for name, entry in CATALOG.items() if name != "items"}}
    merged = {name: value for content in PARAMETERS.values() for name, value in content.items()}
    configuration = Configuration("base", CATALOG, frozenset(), merged, files, PARAMETERS)
    stages = derive_stages(
        {"first": FIRST, "second": SECOND}, configuration, lambda *_: [], lambda path: path != "data/models/tiny"
    )
    assert stages["first"].models == ()
    assert stages["first"].parameters == {"conf/base/parameters/first.yml": ("first",)}
    assert stages["second"].parameters["conf/base/catalog.yml"] == ("picture.save_args",)


def test_another_environment_lies_beside_its_configuration():
    stages = stages_of()
    content = to_dvc(stages.values(), curves(CATALOG, stages.values(), "../.."), "../..")
    assert content["stages"]["first"]["wdir"] == "../.."
    assert content["plots"] == [{"loss": {"x": "step", "y": {"../../data/log.csv": "loss"}}}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": None}, "dataset 'items' is not stored in a file, but stage first makes it and second reads it"),
        ({"words": None}, "dataset 'words' is not stored in a file, but stage first reads it"),
        ({"items": {"type": "sql.SQLTable", "table": "t"}}, "dataset 'items' is not stored in a file"),
        ({"log": {"type": "x.Y", "filepath": "s3://bucket/log"}}, "is outside the project"),
        ({"log": {"type": "x.Y", "filepath": "/tmp/log"}}, "is outside the project"),
        ({"log": {"type": "x.Y", "filepath": "../log"}}, "is outside the project"),
        ({"log": {"type": "x.Y", "filepath": "data/scores.json"}}, "stages first and second both write"),
        ({"picture": {**CATALOG["picture"], "save_args": {"dpi": "${oc.env:DPI}"}}}, "DVC cannot detect"),
    ],
)
def test_data_that_cannot_be_followed_is_rejected(change, message):
    catalog = {name: entry for name, entry in {**CATALOG, **change}.items() if entry is not None}
    with pytest.raises(InputError, match=message):
        stages_of(catalog)


def test_what_stays_in_memory_within_a_stage_is_nobodys_business():
    assert "note" not in {name for stage in stages_of().values() for name in (*stage.inputs, *stage.outputs)}


def test_interpolated_and_unknown_parameters_are_rejected():
    first, second = PARAMETERS
    changed = {**PARAMETERS, first: {"first": {"seed": 1, "deep": [{"x": "${globals:y} ${training.z}"}]}}}
    with pytest.raises(InputError, match=r"first\.yml, field 'first\.deep\.x': .*DVC cannot detect their changes"):
        stages_of(parameters=changed)
    with pytest.raises(InputError, match=r"parameter 'second\.rate' is in no parameter file"):
        stages_of(parameters={**PARAMETERS, second: {"second": {"other": 1}}})


def test_globals_are_followed_in_the_highest_file_that_has_them():
    catalog = {**CATALOG, "picture": {**CATALOG["picture"], "save_args": "${globals:pictures.sharp}"}}
    first = next(iter(PARAMETERS))
    parameters = {**PARAMETERS, first: {"first": {"seed": 1, "folder": "${globals:data}/made by ${globals:name}"}}}
    merged = {name: value for content in parameters.values() for name, value in content.items()}
    global_files = {
        "conf/base/globals.yml": {"data": "data", "name": "x", "pictures": {"sharp": {}}, "unused": 1},
        "conf/own/globals.yml": {"data": "data/own", "unused": 2},
    }
    configuration = Configuration(
        "own",
        catalog,
        frozenset(),
        merged,
        {"conf/base/catalog.yml": catalog},
        parameters,
        global_files=global_files,
    )
    stages = derive_stages({"first": FIRST, "second": SECOND}, configuration, lambda *_: [], lambda _: False)
    assert stages["first"].parameters["conf/base/globals.yml"] == ("name",)
    assert stages["first"].parameters["conf/own/globals.yml"] == ("data",)
    assert stages["second"].parameters["conf/base/globals.yml"] == ("pictures.sharp",)
    assert "conf/own/globals.yml" not in stages["second"].parameters


def test_an_entry_made_from_a_pattern_is_followed_at_the_pattern():
    written = {"pic{kind}": CATALOG["picture"], **{k: v for k, v in CATALOG.items() if k != "picture"}}
    merged = {name: value for content in PARAMETERS.values() for name, value in content.items()}
    files = {"conf/base/catalog.yml": written}
    configuration = Configuration(
        "base", CATALOG, frozenset(), merged, files, PARAMETERS, catalog_keys={"picture": "pic{kind}"}
    )
    stages = derive_stages({"second": SECOND}, configuration, lambda *_: [], lambda _: False)
    assert "pic{kind}.save_args" in stages["second"].parameters["conf/base/catalog.yml"]


def test_a_key_is_followed_in_every_file_that_holds_it():
    files = {**PARAMETERS, "conf/other/parameters.yml": {"second": {"rate": 0.7}}}
    assert set(stages_of(parameters=files)["second"].parameters) >= {
        "conf/base/parameters/second.yml",
        "conf/other/parameters.yml",
    }


def test_constants_of_the_catalog_are_settings():
    catalog = {**CATALOG, "words": {"type": "MemoryDataset", "data": None}}
    kept = {name: entry for name, entry in catalog.items() if name != "words"}
    configuration = Configuration(
        "base",
        kept,
        frozenset({"words"}),
        {"first": {}},
        {"conf/base/catalog.yml": catalog},
        {"conf/base/parameters.yml": {"first": {}}},
    )
    stages = derive_stages({"first": FIRST}, configuration, lambda *_: [], lambda _: True)
    assert stages["first"].inputs == {}
    assert stages["first"].parameters["conf/base/catalog.yml"] == ("items.format", "words.data")


def test_parts_of_a_pipeline_in_the_order_in_which_they_run():
    whole = FIRST + SECOND
    found = parts_of({"second": SECOND, "first": FIRST, "all": whole, "__default__": whole}, "all")
    assert list(found) == ["first", "second"]
    # With a node that no part holds, the whole is one stage.
    more = whole + Pipeline([Node(lambda x: x, "picture", "more", name="more")])
    assert list(parts_of({"first": FIRST, "second": SECOND, "all": more}, "all")) == ["all"]
    assert list(parts_of({"first": FIRST, "all": whole}, "first")) == ["first"]
    with pytest.raises(InputError, match="there is no pipeline 'none'"):
        parts_of({"first": FIRST}, "none")


def test_two_environments_must_not_write_to_one_place():
    stages = stages_of()
    base = ProjectStages(stages, Configuration("base", CATALOG))
    with pytest.raises(InputError, match=r"the environments base and own both write data/items.*conf/own/globals\.yml"):
        check_places({"base": base, "own": base})
    moved = {"first": Stage("first", "", "", {}, (), (), {}, {"items": Output("data/own/items")})}
    check_places({"base": base, "own": ProjectStages(moved, Configuration("own", CATALOG))})


def test_dvc_yaml_is_what_the_project_says():
    """Fails when pipelines, catalog, parameter files or imports have changed: `kedro lineage sync` writes it anew."""
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "kedro", "lineage", "sync", "--check"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = yaml.safe_load((root / "dvc.yaml").read_text())
    assert list(content["stages"]) == [
        *("prompt_filtering", "video_generation", "checklist_inference", "weight_regression", "pair_selection"),
        *("dpo_training", "evaluation"),
    ]
    assert {"data/03_primary/videos": {"persist": True}} in content["stages"]["video_generation"]["outs"]
    assert {"data/08_reporting/headline_figures.json": {"cache": False}} in content["stages"]["evaluation"]["metrics"]


def test_every_shipped_environment_has_stages_of_its_own():
    import subprocess
    import sys

    root = Path(__file__).resolve().parents[2]
    names = sorted(path.parent.name for path in (root / "conf").glob("*/globals.yml") if "\ndata: " in path.read_text())
    assert {"base", "cogvideox", "wan", "image"} <= set(names)
    code = (
        "import json, sys; from pathlib import Path\n"
        "from vr_pipeline.lineage.project import open_project, check_places\n"
        "derived = {name: open_project(Path.cwd(), name) for name in sys.argv[1:]}\n"
        "check_places(derived)\n"
        "files = {name: project.files(Path.cwd()).items() for name, project in derived.items()}\n"
        "print(json.dumps({name: {str(path.relative_to(Path.cwd())): text for path, (_, text) in found}"
        " for name, found in files.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    texts = yaml.safe_load(done.stdout.splitlines()[-1])
    # The method in one file; trainings of judges and rewards, which need data of their own, in others. Base has the
    # method alone.
    for name, found in texts.items():
        further = [f"conf/{name}/{stage}/dvc.yaml" for stage in FURTHER]
        assert list(found) == (["dvc.yaml"] if name == "base" else [f"conf/{name}/dvc.yaml", *further])
    training = yaml.safe_load(texts["wan"]["conf/wan/judge_training/dvc.yaml"])["stages"]["judge_training"]
    assert training["wdir"] == "../../.."
    assert {"data/wan/01_raw/judge_annotations.jsonl", "data/wan/01_raw/judge_training_videos"} <= set(training["deps"])
    assert "data/wan/06_models/judge" in training["outs"]
    contents = {name: yaml.safe_load(next(iter(found.values()))) for name, found in texts.items()}
    for name, content in contents.items():
        for stage in content["stages"].values():
            assert stage["cmd"].startswith(f"sh conf/kedro.sh run --env={name} ")
            assert stage.get("wdir") == (None if name == "base" else "../..")
    # A generator is followed where it is used.
    generation = {name: contents[name]["stages"]["video_generation"]["deps"] for name in ("base", "wan")}
    assert "src/vr_pipeline/generators/wan.py" in generation["wan"]
    assert "src/vr_pipeline/generators/wan.py" not in generation["base"]
    assert "data/06_models/micro_world/generator" in generation["base"]
    assert "data/06_models/micro_world/generator" not in generation["wan"]
