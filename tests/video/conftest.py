from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    """The folder with data/ and upstream/, named by VR_REAL_DATA."""
    folder = os.environ.get("VR_REAL_DATA")
    if not folder:
        pytest.skip("VR_REAL_DATA is not set")
    return Path(folder)
