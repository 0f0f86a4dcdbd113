"""The number of rounds comes from the configuration, and the pipelines follow it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project

from vr_pipeline.project.rounds import DEFAULT_ROUNDS, rounds, use_rounds

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project() -> Iterator[None]:
    bootstrap_project(ROOT)
    yield
    use_rounds({"parameters": {}})  # type: ignore[arg-type]


def names() -> list[str]:
    return sorted(name for name in pipelines if name.startswith("online_round_"))


def test_pipelines_follow_the_number_of_rounds(project: None) -> None:
    use_rounds({"parameters": {"online_mpo": {"rounds": 2}}})  # type: ignore[arg-type]
    assert rounds() == 2
    assert names() == ["online_round_1", "online_round_2"]
    use_rounds({"parameters": {}})  # type: ignore[arg-type]
    assert len(names()) == rounds() == DEFAULT_ROUNDS


@pytest.mark.parametrize("wrong", [0, 100, "three", True, None, 2.5])
def test_a_value_that_is_no_number_of_rounds_is_left_to_validation(project: None, wrong: Any) -> None:
    use_rounds({"parameters": {"online_mpo": {"rounds": wrong}}})  # type: ignore[arg-type]
    assert rounds() == DEFAULT_ROUNDS
