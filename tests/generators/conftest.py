"""Tiny generators of every family, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_models
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator

MODELS = ("cogvideox_2b", "cogvideox_5b", "micro_world", "wan", "sdxl")


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GeneratorParameters]:
    """Settings of each tiny model by its name."""
    folder: Path = tmp_path_factory.mktemp("models")
    return {
        "cogvideox_2b": tiny_models.cogvideox_parameters(tiny_models.save_cogvideox(folder / "2b", rotary=False)),
        "cogvideox_5b": tiny_models.cogvideox_parameters(tiny_models.save_cogvideox(folder / "5b", rotary=True)),
        "micro_world": tiny_models.micro_world_parameters(tiny_models.save_micro_world(folder / "micro")),
        "wan": tiny_models.wan_parameters(tiny_models.save_wan(folder / "wan")),
        "sdxl": tiny_models.sdxl_parameters(tiny_models.save_sdxl(folder / "sdxl")),
    }


@pytest.fixture(params=MODELS)
def parameters(request: pytest.FixtureRequest, settings: dict[str, GeneratorParameters]) -> GeneratorParameters:
    return settings[request.param]


@pytest.fixture
def generator(parameters: GeneratorParameters) -> Generator:
    return load_generator(parameters)
