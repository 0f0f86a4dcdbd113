"""Fixtures of the reward tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from vr_pipeline.checklist import Checklist, load_checklist

settings.register_profile(
    "rewards", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("rewards")


@pytest.fixture(scope="session")
def checklist() -> Checklist:
    return load_checklist(Path(__file__).parents[2] / "conf/base/checklist.yml")


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = os.environ.get("VR_REAL_DATA")
    if not folder:
        pytest.skip("VR_REAL_DATA is not set")
    return Path(folder)
