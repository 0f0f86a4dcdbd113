"""Tiny random models of the real classes, built in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_judges


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models on one thread: several threads would wait for each other longer than they compute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def real_data() -> Path:
    """The folder with data/ and upstream/, named by VR_REAL_DATA."""
    folder = os.environ.get("VR_REAL_DATA")
    if not folder:
        pytest.skip("VR_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def modules_of_remote_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the copies that transformers makes of remote code out of the user's cache.

    One folder for all tests: Python looks for modules of one package where it found the first.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A word-level tokenizer with the special tokens of all families."""
    return tiny_judges.build_tokenizer()


@pytest.fixture
def clips() -> list[np.ndarray]:
    """Clips of different length and size."""
    random = np.random.default_rng(0)
    shapes = [(8, 32, 48), (3, 40, 40), (5, 56, 30)]
    return [random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


@pytest.fixture(scope="session")
def make_judge() -> Callable[..., Any]:
    """Wraps a family's model as a judge."""
    from vr_pipeline.judges.vlm import VisionLanguageJudge
    from vr_pipeline.vlm.config import JudgeParameters

    def make(family: Any, **options: Any) -> Any:
        return VisionLanguageJudge(family, JudgeParameters(family="qwen2_vl", path="./none", **options), "test")

    return make
