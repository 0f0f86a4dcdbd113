"""The environments of real models: complete, valid without weights, and apart from each other."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ("cogvideox", "cogvideox_5b", "wan", "image", "videoreward")
MAKES_SHIPPED_FILES = {"micro_world", "micro_videoreward"}
"""Pipelines that make what is shipped, and their parameters."""


def configuration(environment: str) -> Any:
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
def test_a_mistyped_key_is_refused(environment: str, models: dict[str, type[BaseModel]]) -> None:
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
        "wan": {"loss": "flow_dpo", "beta": 500, "learning_rate": 5e-6, "batch_size": 64},
        "videoreward": {"loss": "flow_dpo", "beta": 500, "learning_rate": 5e-6, "batch_size": 64, "steps": 147},
        "image": {"loss": "diffusion_dpo", "beta": 5000, "batch_size": 32},
    }[environment]
    assert {name: training[name] for name in expected} == expected


@pytest.mark.parametrize("environment", ENVIRONMENTS)
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
    assert parameters["dpo_training"]["checkpoint_folder"].startswith(f"data/{environment}/")


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_run_needs_the_users_files_and_no_shipped_ones(environment: str, pipelines: dict[str, Any]) -> None:
    from kedro.io import DataCatalog

    from vr_pipeline.project.places import stored_at

    loader = configuration(environment)
    catalog = DataCatalog.from_config(loader["catalog"])
    own = loader["globals"].get("pipeline", "mpo_dpo")
    assert own == ("videoreward_dpo" if environment == "videoreward" else "mpo_dpo")
    needed = {name: stored_at(catalog, name) for name in pipelines[own].inputs() if "params:" not in name}
    assert needed.pop("oracle") is None
    places = {
        name: str(place.relative_to(ROOT) if place.is_absolute() else place) for name, place in needed.items() if place
    }
    raw = f"data/{environment}/01_raw"
    checklist = "image" if environment == "image" else "video"
    compared = {
        "preference_clips": f"{raw}/human_preferences.csv",
        "human_preferences": f"{raw}/human_preferences.csv",
        "preference_videos": f"{raw}/preference_videos",
    }
    needs = {"raw_prompts": f"{raw}/prompts.csv", "checklist": f"conf/checklists/{checklist}.yml"}
    # A reward that is made already needs no preferences.
    assert places == needs | (compared if own == "mpo_dpo" else {})


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_checklist_loads_and_fits_the_modality(environment: str) -> None:
    from vr_pipeline.checklist import load_checklist

    entry = configuration(environment)["catalog"]["checklist"]
    assert load_checklist(ROOT / entry["filepath"]).modality == ("image" if environment == "image" else "video")


def test_settings_of_a_sweep_lie_in_files_that_dvc_can_read() -> None:
    """``dvc exp run --set-param FILE:NAME=VALUE`` resolves what FILE interpolates, and knows nothing of globals."""
    for path in (ROOT / "conf" / "base" / "parameters").glob("*.yml"):
        assert OmegaConf.to_container(OmegaConf.load(path), resolve=True), path.name
    for environment in ENVIRONMENTS:
        assert OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / environment / "parameters.yml"), resolve=True)
