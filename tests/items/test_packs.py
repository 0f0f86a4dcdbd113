"""Many items: packs of small ones, files spread over folders, and starts that read nothing again."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import DatasetError

from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.errors import InputError
from vr_pipeline.items.formats import TableFormat
from vr_pipeline.items.manifest import MANIFEST, PARTIAL_MANIFEST, ItemRecord, Manifest
from vr_pipeline.work import WorkItem, WorkPlan, run_in_process, use_loop


class Maker:
    """Makes a small table of each item's key and identity, and counts."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.made: list[str] = []
        self.stop_at = stop_at

    def __call__(self, context: None, batch: Sequence[WorkItem]) -> list[Any]:
        if self.stop_at in [item.key for item in batch]:
            raise RuntimeError("power cut")
        self.made += [item.key for item in batch]
        return [content(item.key, item.identity) for item in batch]


def content(key: str, identity: str) -> pd.DataFrame:
    number = int(key.removeprefix("item"))
    return pd.DataFrame({"key": key, "identity": identity, "value": np.arange(number % 3 + 1) / 7})


def save(folder: Path, maker: Any, count: int = 12, identity: str = "v1", kind: str = "table") -> ManifestFolderDataset:
    store = ManifestFolderDataset(path=str(folder), format={"type": kind})
    items = [WorkItem(f"item{n}", f"{identity}-{n}") for n in range(count)]
    store.save(WorkPlan(items, maker, batch_size=2, description="things"))
    return store


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vr_pipeline.items.packs.ITEMS_IN_A_PACK", 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "things"


cells = {
    "text": st.lists(st.text(max_size=5), min_size=3, max_size=3),
    "number": st.lists(st.floats(), min_size=3, max_size=3),
    "count": st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3),
    "flag": st.lists(st.booleans(), min_size=3, max_size=3),
}


@given(st.fixed_dictionaries(cells))
def test_tables_come_back_as_they_were(columns: dict[str, list[Any]]) -> None:
    table = pd.DataFrame(columns)
    stored = TableFormat().encode(table)
    assert stored == TableFormat().encode(table.set_axis([5, 6, 7]))
    pd.testing.assert_frame_equal(TableFormat().decode([stored]), table)
    both = TableFormat().decode([stored, TableFormat().encode(table[["count"]])])
    pd.testing.assert_frame_equal(both.iloc[:3][["text", "number", "count"]], table[["text", "number", "count"]])
    assert both["count"].tolist() == [*columns["count"], *columns["count"]]
    assert both["text"].isna().tolist() == [False] * 3 + [True] * 3


def test_few_files_hold_many_items_and_each_comes_back(folder: Path) -> None:
    loaded = save(folder, Maker()).load()
    packs = [path for path in folder.iterdir() if path.name != MANIFEST]
    assert 1 < len(packs) < 12
    keys = [f"item{n}" for n in (7, 0, 11, 3)]
    for key in keys:
        pd.testing.assert_frame_equal(loaded.load(key), content(key, f"v1-{key[4:]}"))
    expected = pd.concat([content(key, f"v1-{key[4:]}") for key in keys], ignore_index=True)
    pd.testing.assert_frame_equal(loaded.load_joined(keys), expected)
    with pytest.raises(TypeError, match="no file of their own"):
        loaded.path("item0")
    with pytest.raises(KeyError):
        loaded.load("item12")


def test_the_order_of_making_changes_no_byte(folder: Path, tmp_path: Path) -> None:
    def backwards(work: Any, batches: Any) -> Any:
        yield from reversed(list(run_in_process(work, batches)))

    save(folder, Maker())
    with use_loop(backwards):
        save(tmp_path / "backwards", Maker())
    with pytest.raises(DatasetError, match="power cut"):
        save(tmp_path / "stopped", Maker(stop_at="item7"))
    save(tmp_path / "stopped", Maker())
    save(tmp_path / "grown", Maker(), count=3)
    save(tmp_path / "grown", Maker())
    save(tmp_path / "shrunk", Maker(), count=70)
    save(tmp_path / "shrunk", Maker())
    for name in ("backwards", "stopped", "grown", "shrunk"):
        assert tree(tmp_path / name) == tree(folder), name


@given(position=st.integers(0, 10_000), value=st.binary(min_size=1, max_size=3), name=st.integers(0, 20))
def test_any_damage_heals_and_only_what_is_damaged_is_made_again(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: bytes, name: int
) -> None:
    folder = tmp_path_factory.mktemp("damage") / "things"
    save(folder, Maker())
    undisturbed = tree(folder)
    victim = sorted(folder.iterdir())[name % len(undisturbed)]
    damaged = bytearray(victim.read_bytes())
    position %= len(damaged) + 1
    damaged[position : position + len(value)] = value
    victim.write_bytes(damaged)
    again = Maker()
    save(folder, again)
    assert tree(folder) == undisturbed
    if victim.name != MANIFEST:
        # At most two items that lie side by side are hit, each in a batch of two.
        assert len(again.made) <= 4


def test_damage_is_seen_when_an_item_is_read(folder: Path) -> None:
    store = save(folder, Maker())
    before, loaded = tree(folder), store.load()
    record = next(record for record in json.loads(before[MANIFEST])["items"] if record["key"] == "item5")
    whole = bytearray(before[record["filename"]])
    whole[record["start"] + 3] ^= 1
    (folder / record["filename"]).write_bytes(whole)
    assert loaded.damaged() == ["item5"]
    with pytest.raises(InputError, match=r"item 'item5' in 'items-.*is missing or damaged"):
        loaded.load("item5")
    assert len(loaded.load("item4"))
    (folder / record["filename"]).write_bytes(whole[:-1])
    with pytest.raises(DatasetError, match="missing or not whole"):
        store.load()


@pytest.mark.parametrize("kind", ["table", "json"])
def test_a_second_start_reads_no_item(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(context: None, batch: Sequence[WorkItem]) -> list[Any]:
        return [content(item.key, "x") if kind == "table" else {"key": item.key} for item in batch]

    save(folder, make, kind=kind)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    def read(*_: Any) -> None:
        raise AssertionError("a file is read again")

    monkeypatch.setattr("vr_pipeline.storage.atomic.sha256_of", read)
    monkeypatch.setattr("vr_pipeline.items.packs.read_items", read)
    monkeypatch.setattr(Manifest, "to_text", read)
    save(folder, read, kind=kind)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_run_that_resumes_appends_to_the_manifest(folder: Path) -> None:
    begun = []
    for stop_at in ("item4", "item8"):
        with pytest.raises(DatasetError, match="power cut"):
            save(folder, Maker(stop_at=stop_at))
        begun.append((folder / PARTIAL_MANIFEST).read_bytes())
    assert begun[1].startswith(begun[0])
    assert begun[1].count(b"\n") == 9


def test_many_files_are_spread_over_folders_and_moved_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vr_pipeline.items.filling.FILES_IN_A_FOLDER", 20)

    def make(context: None, batch: Sequence[WorkItem]) -> list[Any]:
        made.extend(item.key for item in batch)
        return [{"key": item.key} for item in batch]

    made: list[str] = []
    save(folder, make, count=20, kind="json")
    flat = tree(folder)
    made.clear()
    loaded = save(folder, make, count=24, kind="json").load()
    assert made == ["item20", "item21", "item22", "item23"]
    assert {path.name for path in folder.iterdir() if path.is_file()} == {MANIFEST}
    assert all(loaded.load(key) == {"key": key} for key in loaded.keys)
    assert len(loaded) == 24
    spread = tree(folder)
    stranger = loaded.path("item3").with_name("stranger.json")
    stranger.write_text("{}")
    save(folder, make, count=24, kind="json")
    assert tree(folder) == spread
    save(folder, make, count=20, kind="json")
    assert made == ["item20", "item21", "item22", "item23"]
    assert tree(folder) == flat
    assert {path.name for path in folder.iterdir()} == set(flat)


@pytest.mark.parametrize("kind", ["table", "json"])
def test_files_that_dvc_links_to_its_cache_are_replaced_and_never_written(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    cache = tmp_path / "cache"

    def link() -> dict[Path, bytes]:
        """Do as DVC does with hard links: one read-only file under two names."""
        cached = {}
        for file in folder.iterdir():
            other = cache / str(len(list(cache.iterdir())))
            file.chmod(0o444)
            os.link(file, other)
            cached[other] = other.read_bytes()
        return cached

    def make(context: None, batch: Sequence[WorkItem]) -> list[Any]:
        if stop_at in [item.key for item in batch]:
            raise RuntimeError("power cut")
        return [content(item.key, item.identity) if kind == "table" else {"i": item.identity} for item in batch]

    cache.mkdir()
    stop_at = ""
    save(folder, make, kind=kind)
    cached = link()
    stop_at = "item8"
    with pytest.raises(DatasetError, match="power cut"):
        save(folder, make, identity="v2", kind=kind)
    cached |= link()  # The unfinished folder too.
    stop_at = ""
    save(folder, make, identity="v2", kind=kind)
    assert {file: file.read_bytes() for file in cached} == cached
    save(tmp_path / "other", make, identity="v2", kind=kind)
    assert tree(folder) == tree(tmp_path / "other")


scalars = st.one_of(st.text(max_size=5), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none())


@given(st.lists(st.dictionaries(st.text(max_size=5), scalars, max_size=3), max_size=4))
def test_the_manifest_is_ordinary_json(metadata: list[dict[str, Any]]) -> None:
    items = tuple(
        ItemRecord(key=f"k{n}", filename="", identity="i", sha256="", bytes=0, status="failed", metadata=one)
        for n, one in enumerate(metadata)
    )
    text = Manifest(format={"type": "json"}, items=items).to_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    assert [one["metadata"] for one in json.loads(text)["items"]] == metadata


def test_items_of_a_former_format_are_made_again_with_a_word(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder.mkdir()
    content("item0", "v1-0").to_parquet(folder / "item0.parquet")
    record = {"key": "item0", "filename": "item0.parquet", "identity": "v1-0", "sha256": "0" * 64, "bytes": 9}
    manifest = {"version": 1, "format": {"type": "parquet"}, "items": [{**record, "status": "ok"}]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match=r"were stored as \{'type': 'parquet'\}.*Run the pipeline that makes them"):
        ManifestFolderDataset(path=str(folder), format={"type": "table"}).load()
    with caplog.at_level(logging.WARNING):
        save(folder, Maker())
    assert "its 1 items were stored as {'type': 'parquet'} and are made again" in caplog.text
    assert not (folder / "item0.parquet").exists()


def test_the_bytes_of_a_table_do_not_show_how_it_was_put_together():
    """A process sends a table in one piece that another one put together from several."""
    parts = [pd.DataFrame({"video_id": f"v{i}", "question": ["a", "b"], "p_yes": [0.25 * i, 1.0]}) for i in range(3)]
    joined = pd.concat(parts, ignore_index=True)
    again = pickle.loads(pickle.dumps(joined, protocol=5))
    stored_as = TableFormat()
    assert stored_as.encode(again) == stored_as.encode(joined) == stored_as.encode(pd.DataFrame(joined.to_dict("list")))
    pd.testing.assert_frame_equal(stored_as.decode([stored_as.encode(joined)]), joined)
