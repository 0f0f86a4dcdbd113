"""The environments of real models: complete, valid without weights, and apart from each other."""

from __future__ import annotations

import functools
import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError

from vr_pipeline.generators import family_of

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ("image", "sd35", "qwen_image", "z_image", "flux2_klein")
FROM_IMAGES = ("wan_i2v", "wan_2_2_i2v_a14b", "wan_2_2_5b_i2v", "cogvideox_i2v")
"""Environments whose clips start from an image."""
ENVIRONMENTS = (
    "cogvideox",
    "cogvideox_5b",
    "cogvideox_1_5",
    "wan",
    "wan_2_2_5b",
    "wan_2_2_a14b",
    "hunyuan_video",
    "ltx_2",
    *FROM_IMAGES,
    *IMAGES,
    "videoreward",
    "unified",
)
SYSTEMS = {"videoreward": "videoreward_dpo", "unified": "unified_dpo"}
"""What an environment runs, where it is not mpo_dpo."""
FLOW_DPO = {"loss": "flow_dpo", "beta": 500, "learning_rate": 5e-6, "batch_size": 64, "steps": 147}
"""Published settings of Flow-DPO, one epoch of 9,400 pairs."""
EMBEDDED = ("flow", "trade_offs")
"""Environments of the micro-world."""
MAKES_SHIPPED_FILES = {"micro_world", "micro_videoreward", "micro_unifiedreward"}
"""Pipelines that make what is shipped, and their parameters."""


@functools.cache
def configuration(environment: str) -> Any:
    """The loader of an environment: it reads each kind of file once, which takes a second, and gives copies."""
    from vr_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    return CONFIG_LOADER_CLASS(str(ROOT / "conf"), env=environment, **CONFIG_LOADER_ARGS)


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    from vr_pipeline.pipeline_registry import register_pipelines

    return register_pipelines()


@pytest.fixture(scope="module")
def models(pipelines: dict[str, Any]) -> dict[str, type[BaseModel]]:
    """The type of every parameter block, as the nodes state it."""
    found: dict[str, type[BaseModel]] = {}
    for pipeline in pipelines.values():
        for node in pipeline.nodes:
            if not any(name.startswith("params:") for name in node.inputs):
                continue
            hints = get_type_hints(node.func)
            for name, argument in zip(node.inputs, inspect.signature(node.func).parameters, strict=False):
                if name.startswith("params:"):
                    found[name.removeprefix("params:")] = hints[argument]
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_parameters_are_valid_without_weights(environment: str, models: dict[str, type[BaseModel]]) -> None:
    parameters = configuration(environment)["parameters"]
    assert set(parameters) == set(models)
    made = {name: models[name].model_validate(block) for name, block in parameters.items()}
    assert made["generator"].revision, "a model on the hub is pinned to a commit"  # type: ignore[attr-defined]
    assert made["dpo_training"].generator_batch_size is None, "the demo's batch is none for real models"  # type: ignore[attr-defined]
    own = str({name: block for name, block in parameters.items() if name not in MAKES_SHIPPED_FILES})
    assert "micro_world" not in own
    assert "micro-world" not in own


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_mistyped_key_is_rejected(environment: str, models: dict[str, type[BaseModel]]) -> None:
    block = configuration(environment)["parameters"]["dpo_training"]
    block["training"]["betta"] = 1.0
    with pytest.raises(ValidationError, match="betta"):
        models["dpo_training"].model_validate(block)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_published_settings(environment: str) -> None:
    """Against the table of published settings (VisionReward, Flow-DPO, UnifiedReward)."""
    training = configuration(environment)["parameters"]["dpo_training"]["training"]
    expected = {
        "cogvideox": {"loss": "diffusion_dpo", "beta": 500, "learning_rate": 5e-6, "batch_size": 32, "steps": 500}
        | {"warmup_steps": 100, "checkpoint_every": 40},
        "cogvideox_5b": {"loss": "diffusion_dpo", "beta": 500, "learning_rate": 2e-6, "batch_size": 64, "steps": 300},
        # Three epochs of 9,400 pairs.
        "unified": FLOW_DPO | {"steps": 441},
        "image": {"loss": "diffusion_dpo", "beta": 5000, "batch_size": 32},
        # Those of the model that they extend.
        "cogvideox_1_5": {"loss": "diffusion_dpo", "beta": 500, "learning_rate": 2e-6, "batch_size": 64, "steps": 300},
        "cogvideox_i2v": {"loss": "diffusion_dpo", "beta": 500, "learning_rate": 2e-6, "batch_size": 64, "steps": 300},
    }.get(environment, FLOW_DPO)
    assert {name: training[name] for name in expected} == expected


@pytest.mark.parametrize("environment", ["cogvideox", "cogvideox_5b"])
def test_prompts_are_prepared_as_published(environment: str) -> None:
    given = configuration(environment)["parameters"]["prompt_filtering"]
    model = given["language_model"]
    assert given["split"]["train_prompts"] == 22_000
    assert (model["clean"], model["rewrite"]) == (True, True)
    assert len(model["revision"]) == 40, "pinned to a commit"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_published_settings_of_judges(environment: str, models: dict[str, type[BaseModel]]) -> None:
    """VisionReward: a batch of 64 answers, not of 64 clips."""
    parameters = configuration(environment)["parameters"]
    made: Any = models["judge_training"].model_validate(parameters["judge_training"])
    assert made.answers_per_step == 64
    assert made.answers_per_pass * made.passes == 64
    assert made.steps == 1500
    assert made.learning_rate == (1e-6 if environment in IMAGES else 4e-6)
    assert made.start.model_dump() == models["judge"].model_validate(parameters["judge"]).model_dump()


@pytest.mark.parametrize("environment", [*ENVIRONMENTS, *EMBEDDED])
def test_results_lie_in_a_folder_of_their_own(environment: str, pipelines: dict[str, Any]) -> None:
    from kedro.io import DataCatalog

    from vr_pipeline.project.places import stored_at

    loader = configuration(environment)
    catalog = DataCatalog.from_config(loader["catalog"])
    written = set(catalog) & {
        name for key, value in pipelines.items() if key not in MAKES_SHIPPED_FILES for name in value.all_outputs()
    }
    for name in sorted(written):
        place = stored_at(catalog, name)
        assert place is not None, name
        inside = place.relative_to(ROOT) if place.is_absolute() else place
        assert inside.parts[:2] == ("data", environment), name
    parameters = loader["parameters"]
    folders = [parameters["dpo_training"]["checkpoint_folder"], parameters["dpo_training"]["validation"]["folder"]]
    folders += of_checkpoints(parameters) if environment in EMBEDDED else []
    assert {folder.split("/")[1] for folder in folders} == {environment}


def of_checkpoints(block: Any) -> list[str]:
    """All folders of checkpoints in a block of parameters."""
    if not isinstance(block, dict):
        return []
    own = [block["checkpoint_folder"]] if block.get("checkpoint_folder") else []
    return own + [folder for value in block.values() for folder in of_checkpoints(value)]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_run_needs_the_users_files_and_no_shipped_ones(environment: str, pipelines: dict[str, Any]) -> None:
    from kedro.io import DataCatalog

    from vr_pipeline.project.places import stored_at

    loader = configuration(environment)
    catalog = DataCatalog.from_config(loader["catalog"])
    own = loader["globals"].get("pipeline", "mpo_dpo")
    assert own == SYSTEMS.get(environment, "mpo_dpo")
    needed = {name: stored_at(catalog, name) for name in pipelines[own].inputs() if "params:" not in name}
    assert needed.pop("oracle") is None
    assert needed.pop("auditor") is None
    places = {
        name: str(place.relative_to(ROOT) if place.is_absolute() else place) for name, place in needed.items() if place
    }
    raw = f"data/{environment}/01_raw"
    checklist = "image" if environment in IMAGES else "video"
    compared = {
        "preference_clips": f"{raw}/human_preferences.csv",
        "human_preferences": f"{raw}/human_preferences.csv",
        "preference_videos": f"{raw}/preference_videos",
    }
    needs = {"raw_prompts": f"{raw}/prompts.csv", "checklist": f"conf/checklists/{checklist}.yml"}
    # A reward that is made already needs no preferences.
    assert places == needs | (compared if own == "mpo_dpo" else {})


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_first_frames_are_read_where_generators_take_them_and_nowhere_else(environment: str) -> None:
    loader = configuration(environment)
    from_images = environment in FROM_IMAGES
    asked = loader["parameters"]["preference_generators"]["generators"].values()
    families = {one["family"] for one in (loader["parameters"]["generator"], *filter(None, asked))}
    assert {family_of(family).takes_image for family in families} == {from_images}
    folder = f"data/{environment}/01_raw/images" if from_images else None
    assert loader["catalog"]["raw_prompts"].get("image_folder") == folder


def test_the_flow_differs_from_the_embedded_default_in_its_generator_and_objective_alone(
    pipelines: dict[str, Any], models: dict[str, type[BaseModel]]
) -> None:
    from kedro.io import DataCatalog

    from vr_pipeline.project.places import stored_at

    flow, default = configuration("flow"), configuration("base")
    for name, block in flow["parameters"].items():
        models[name].model_validate(block)
    same_places = json.loads(json.dumps(flow["parameters"]).replace("data/flow/", "data/"))
    changed = {name for name, block in same_places.items() if block != default["parameters"][name]}
    assert changed == {"generator", "dpo_training", "evaluation"}
    assert flow["parameters"]["dpo_training"]["training"]["loss"] == "flow_dpo"
    needed = {name for name in pipelines["mpo_dpo"].inputs() if "params:" not in name}
    for name in needed:
        catalogs = (DataCatalog.from_config(loader["catalog"]) for loader in (flow, default))
        ours, theirs = (stored_at(catalog, name) for catalog in catalogs)
        assert ours == theirs, name


def test_the_world_with_trade_offs_reads_and_writes_in_its_own_folder_alone(
    pipelines: dict[str, Any], models: dict[str, type[BaseModel]]
) -> None:
    from kedro.io import DataCatalog

    from vr_pipeline.project.places import stored_at

    loader = configuration("trade_offs")
    for name, block in loader["parameters"].items():
        models[name].model_validate(block)
    places = set(re.findall(r"'(data/[^']*)'", str(loader["parameters"])))
    assert places
    assert {place.split("/")[1] for place in places} == {"trade_offs"}
    catalog = DataCatalog.from_config(loader["catalog"])
    own = pipelines["micro_world"]
    stored = {name: stored_at(catalog, name) for name in own.all_outputs() if name in catalog}
    for name, place in stored.items():
        inside = place.relative_to(ROOT) if place.is_absolute() else place
        assert inside.parts[:2] == ("data", "trade_offs"), name
    # What mpo_dpo reads there is what micro_world makes there.
    needed = {name for name in pipelines["mpo_dpo"].inputs() if "params:" not in name} - {"checklist"}
    read = {stored_at(catalog, name) for name in needed} - {None}
    assert read <= set(stored.values())


def test_a_seed_of_the_world_with_trade_offs_is_one_value(tmp_path: Path) -> None:
    """An environment that extends it and changes the seed has other prompts, clips, noise and results."""
    from vr_pipeline.settings import CONFIG_LOADER_ARGS, CONFIG_LOADER_CLASS

    conf = tmp_path / "conf"
    for name in ("base", "trade_offs"):
        shutil.copytree(ROOT / "conf" / name, conf / name)
    (conf / "seed7").mkdir()
    (conf / "seed7" / "globals.yml").write_text("extends: trade_offs\ndata: data/seed7\nseed: 7\n")
    ours, theirs = (
        CONFIG_LOADER_CLASS(str(conf), env=name, **CONFIG_LOADER_ARGS)["parameters"] for name in ("seed7", "trade_offs")
    )
    for one, seed in ((ours, 7), (theirs, 0)):
        training = one["dpo_training"]
        seeds = [one["video_generation"]["seed"], one["evaluation"]["seed"], training["training"]["seed"]]
        assert {*seeds, training["validation"]["seed"]} == {seed}
        assert one["prompt_filtering"]["split"]["salt"] == f"trade_offs-{seed}"
    assert ours["generator"] == theirs["generator"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_checklist_loads_and_fits_the_modality(environment: str) -> None:
    from vr_pipeline.checklist import load_checklist

    entry = configuration(environment)["catalog"]["checklist"]
    assert load_checklist(ROOT / entry["filepath"]).modality == ("image" if environment in IMAGES else "video")


def test_settings_of_a_sweep_lie_in_files_that_dvc_can_read() -> None:
    """``dvc exp run --set-param FILE:NAME=VALUE`` resolves what FILE interpolates, and knows nothing of globals."""
    for path in (ROOT / "conf" / "base" / "parameters").glob("*.yml"):
        assert OmegaConf.to_container(OmegaConf.load(path), resolve=True), path.name
    for environment in (*ENVIRONMENTS, *EMBEDDED):
        assert OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / environment / "parameters.yml"), resolve=True)
