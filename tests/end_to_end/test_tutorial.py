"""The tutorial on own data does what it says: its files are made, its commands run, its output appears."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tests.end_to_end.conftest import ROOT, copy_project

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^(<!-- fails -->\n)?```(\w+)(?: title=\"([^\"\n]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_tutorial(text: str, folder: Path) -> list[str]:
    """Follow a page: write its files, run its commands, compare its output; what every command printed.

    A block with a title is a file; ``sh`` holds commands, after the comment 'fails' some that end with an error;
    ``text`` holds beginnings of lines that the commands before it printed.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", "COLUMNS": "200"}
    programs = {"kedro": [sys.executable, "-m", "kedro"], "python": [sys.executable]}
    printed: list[str] = []
    for fails, language, title, content in BLOCK.findall(text):
        if title:
            (folder / title).write_text(content, encoding="utf-8")
        elif language == "sh":
            for line in content.splitlines():
                program, *arguments = shlex.split(line)
                result = subprocess.run(
                    [*programs[program], *arguments], cwd=folder, env=environment, capture_output=True, text=True
                )
                output = result.stdout + result.stderr
                assert (result.returncode != 0) == bool(fails), f"{line}\n{output[-4000:]}"
                assert "Traceback" not in output, output[-4000:]
                printed.append(output)
        elif language == "text":
            said = "\n".join(printed[-2:])
            for line in content.splitlines():
                assert any(one.startswith(line) for one in said.splitlines()), f"{line}\nis not in\n{said}"
    return printed


def test_the_tutorial_on_own_data(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    shutil.rmtree(project / "conf" / "mydata", ignore_errors=True)  # the reader's own, if there is one
    printed = run_tutorial((ROOT / "docs" / "your_own_data.md").read_text(encoding="utf-8"), project)
    assert len(printed) == 8
    results = project / "data" / "mydata"
    prompts = pd.read_parquet(results / "03_primary" / "filtered_prompts.parquet")
    assert len(prompts) == 9
    assert {"train", "test"} <= set(prompts["split"])
    weights = json.loads((results / "06_models" / "reward_weights.json").read_text())["questions"]
    assert set(weights) == {"colour_matches", "background_matches", "moves_fast", "moves_clearly"}
    assert weights["colour_matches"]["weight"] > 0, weights
    assert weights["background_matches"]["removed"]
    assert weights["moves_fast"]["weight"] + weights["moves_clearly"]["weight"] > 0
    agreement = json.loads((results / "08_reporting" / "reward_agreement.json").read_text())
    assert agreement["diff"] > 0.5
    # The demonstration's results have a place of their own.
    assert not (project / "data" / "06_models" / "reward_weights.json").exists()
