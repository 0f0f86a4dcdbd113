"""Strategies and helpers shared by the tests of prompts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_prompts() -> list[str]:
    """Fifty thousand prompts that people wrote, where they are at hand."""
    root = os.environ.get("VR_REAL_DATA")
    path = Path(root or ".") / "data" / "prompts" / "vidprom_50k.txt"
    if not root or not path.is_file():
        pytest.skip("VR_REAL_DATA does not point at a folder with data/prompts/vidprom_50k.txt")
    return path.read_text(encoding="utf-8").splitlines()
