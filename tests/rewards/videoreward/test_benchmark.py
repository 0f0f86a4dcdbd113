"""The benchmark of VideoReward runs, at a size that says nothing about speed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"


def test_figures_of_a_tiny_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    module = importlib.import_module("videoreward")
    options = ["--size", "tiny", "--dimensions", "4", "--clips", "2", "--prompts", "2", "--repeats", "1"]
    monkeypatch.setattr("sys.argv", ["videoreward.py", *options])
    module.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["visual_tokens"] == 2 * 2 * 3
    assert (figures["dimensions"], figures["clips"], figures["prompts"]) == (4, 2, 2)
    # bfloat16: both ways round, and round alike within its precision.
    assert figures["max_difference"] < 0.02
    assert min(figures[name] for name in ("ratio", "ratio_of_prompts", "ratio_to_floor", "clips_per_second")) > 0
    monkeypatch.setattr("sys.argv", ["videoreward.py", "--device", "cuda"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        module.main()
