"""The benchmark of the shared prefix runs, at a size that says nothing about speed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks/checklist.py"


def test_figures_of_a_tiny_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    specification = importlib.util.spec_from_file_location("benchmark_checklist", PATH)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    options = ["--size", "tiny", "--questions", "6", "--clips", "2", "--sampled", "2"]
    options += ["--repeats", "1", "--additions", "1"]
    monkeypatch.setattr("sys.argv", ["checklist.py", *options])
    module.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["visual_tokens"] == 2 * 2 * 3
    assert (figures["questions"], figures["clips"], figures["dtype"]) == (6, 2, "bfloat16")
    assert figures["max_difference"] < 0.02
    assert min(figures[name] for name in ("ratio", "ratio_to_floor", "clips_per_second", "peak_mb")) > 0
    assert set(figures["additions"]) == {"shared_beginning", "one_length", "reading_ahead"}
    for addition in figures["additions"].values():
        assert addition["max_difference"] <= module.TOLERANCE["bfloat16"]
        assert min(addition[name] for name in ("ratio", "processor_ratio", "seconds", "processor")) > 0
    monkeypatch.setattr("sys.argv", ["checklist.py", "--device", "cuda"])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device"):
        module.main()
