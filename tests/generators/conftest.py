"""Tiny generators of every family, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from generator_families import FAMILIES
from vr_pipeline.generators import load_generator
from vr_pipeline.generators.config import GeneratorParameters
from vr_pipeline.generators.contract import Generator


class Settings(dict[str, GeneratorParameters]):
    """Settings of each tiny model by its name; a model is built when it is asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, name: str) -> GeneratorParameters:
        return self.setdefault(name, FAMILIES[name].parameters(self._folder / name))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GeneratorParameters]:
    """Settings of each tiny model by its name."""
    return Settings(tmp_path_factory.mktemp("models"))


@pytest.fixture(params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    """Name of a family's tiny model."""
    return str(request.param)


@pytest.fixture
def parameters(name: str, settings: dict[str, GeneratorParameters]) -> GeneratorParameters:
    return settings[name]


@pytest.fixture
def generator(parameters: GeneratorParameters) -> Generator:
    return load_generator(parameters)
