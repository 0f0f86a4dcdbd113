"""kedro verify: every item is read, and the next run mends what is damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from vr_pipeline.commands.verify import verify
from vr_pipeline.items.filling import fill
from vr_pipeline.items.formats import item_format
from vr_pipeline.items.manifest import PARTIAL_MANIFEST
from vr_pipeline.planning import opening
from vr_pipeline.work import WorkItem, WorkPlan

FORMATS = {"table": {"type": "table"}, "json": {"type": "json"}}


def filled(folder: Path, kind: str, made: list[str] | None = None) -> None:
    def make(context: None, batch: Any) -> list[Any]:
        if made is not None:
            made.extend(item.key for item in batch)
        rows = {"a": [int(item.key[-1]) for item in batch]}
        return [pd.DataFrame(rows) if kind == "table" else rows for _ in batch]

    fill(folder, item_format(FORMATS[kind]), WorkPlan([WorkItem(f"item{n}", f"v{n}") for n in range(3)], make))


def damage(file: Path) -> None:
    """Change one byte, with size and times as before."""
    was, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    places = {kind: tmp_path / kind for kind in FORMATS}
    for kind, place in places.items():
        filled(place, kind)
    monkeypatch.setattr(opening, "open_project", lambda *_: None)
    monkeypatch.setattr(opening, "item_folders", lambda _: {kind: (places[kind], FORMATS[kind]) for kind in FORMATS})
    return places


def test_whole_folders_are_found_whole(folders: dict[str, Path]) -> None:
    answer = CliRunner().invoke(verify, [])
    assert answer.exit_code == 0, answer.output
    assert "table: 3 items, 0 missing or damaged" in answer.output
    assert "json: 3 items, 0 missing or damaged" in answer.output


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_damage_is_found_and_the_next_run_mends_only_it(folders: dict[str, Path], kind: str) -> None:
    whole = {file: file.read_bytes() for file in folders[kind].iterdir()}
    damage(next(file for file in sorted(folders[kind].iterdir()) if file.name.startswith("item")))
    answer = CliRunner().invoke(verify, ["--json", kind])
    assert answer.exit_code == 1
    found = json.loads(answer.stdout)
    assert list(found) == [kind]
    assert found[kind]["items"] == 3
    assert len(found[kind]["damaged"]) == 1
    made: list[str] = []
    filled(folders[kind], kind, made)
    assert made == list(found[kind]["damaged"])
    assert {file: file.read_bytes() for file in folders[kind].iterdir()} == whole
    assert CliRunner().invoke(verify, []).exit_code == 0


def test_a_missing_file_is_reported_by_name(folders: dict[str, Path]) -> None:
    (folders["json"] / "item1.json").unlink()
    answer = CliRunner().invoke(verify, ["json"])
    assert answer.exit_code == 1
    assert "item1: item1.json" in answer.output


def test_an_unfinished_folder_is_left_to_the_run(folders: dict[str, Path]) -> None:
    (folders["json"] / PARTIAL_MANIFEST).touch()
    answer = CliRunner().invoke(verify, [])
    assert answer.exit_code == 0
    assert "json: not finished" in answer.output


def test_an_unknown_dataset_is_an_error_with_the_known_ones(folders: dict[str, Path]) -> None:
    answer = CliRunner().invoke(verify, ["vidoes"])
    assert answer.exit_code != 0
    assert "'vidoes'" in answer.output
    assert "json, table" in answer.output
