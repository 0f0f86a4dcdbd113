"""A toy training, made once a session."""

from __future__ import annotations

import pytest

from toy_training import Toy, make_toy


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return make_toy(tmp_path_factory.mktemp("model") / "micro")
