"""The folder of items: complete or absent, resumes without mixing, survives kills, damage and foreign files."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import DatasetError

from vr_pipeline.datasets.manifest import ManifestFolderDataset
from vr_pipeline.errors import InputError
from vr_pipeline.items.formats import JsonFormat
from vr_pipeline.items.manifest import MANIFEST, PARTIAL_MANIFEST, item_filename
from vr_pipeline.work import ItemFailure, WorkItem, WorkPlan, run_in_process, use_loop


class Maker:
    """Counts what is made; item ``n`` has the content {"value": n, "batch": <keys of its batch>}."""

    def __init__(self, *, fails: set[str] = frozenset(), stop_at: str | None = None) -> None:
        self.setups = 0
        self.made: list[str] = []
        self.fails, self.stop_at = fails, stop_at

    def setup(self) -> str:
        self.setups += 1
        return "model"

    def __call__(self, context: str, batch) -> list:
        assert context == "model"
        if self.stop_at in [item.key for item in batch]:
            raise RuntimeError("power cut")
        self.made += [item.key for item in batch]
        keys = [item.key for item in batch]
        return [
            ItemFailure(f"cannot make {item.key}")
            if item.key in self.fails
            else {"key": item.key, "identity": item.identity, "batch": keys}
            for item in batch
        ]


def plan(maker: Maker, count: int = 7, *, identity: str = "v1", batch_size: int = 3, keys=None, **metadata) -> WorkPlan:
    keys = [f"item{n}" for n in range(count)] if keys is None else keys
    items = [WorkItem(key, f"{identity}-{key}", metadata) for key in keys]
    return WorkPlan(items, maker, batch_size=batch_size, description="things", setup=maker.setup)


def dataset(folder: Path, **format_options) -> ManifestFolderDataset:
    return ManifestFolderDataset(path=str(folder), format=format_options or {"type": "json"})


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "things"


@pytest.fixture
def reference(tmp_path: Path) -> dict[str, bytes]:
    """The files of an undisturbed run of the default plan."""
    dataset(tmp_path / "reference").save(plan(Maker()))
    return tree(tmp_path / "reference")


def test_makes_everything_once_and_then_nothing(folder, reference):
    first, second = Maker(), Maker()
    store = dataset(folder)
    assert not store.exists()
    store.save(plan(first))
    assert store.exists()
    assert first.setups == 1
    assert first.made == [f"item{n}" for n in range(7)]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    store.save(plan(second))
    assert (second.setups, second.made) == (0, [])
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert tree(folder) == reference


def test_loads_what_was_saved(folder):
    dataset(folder).save(plan(Maker(fails={"item2"}), split="train", rank=np.int64(3)))
    loaded = dataset(folder).load()
    assert loaded.load("item1") == {"key": "item1", "identity": "v1-item1", "batch": ["item0", "item1", "item2"]}
    assert loaded.path("item1").is_file()
    assert len(loaded) == 6
    assert "item2" not in loaded
    records = loaded.records.set_index("key")
    assert list(records.index) == sorted(records.index)
    assert records.loc["item2", ["status", "error", "filename"]].tolist() == ["failed", "cannot make item2", ""]
    assert (records["split"] == "train").all()
    assert (records["rank"] == 3).all()
    assert loaded.damaged() == []
    with pytest.raises(InputError, match="cannot make item2"):
        loaded.path("item2")
    with pytest.raises(KeyError):
        loaded.path("item99")


def test_failed_items_are_tried_again_and_the_folder_becomes_the_undisturbed_one(folder, reference):
    dataset(folder).save(plan(Maker(fails={"item4"})))
    assert dataset(folder).exists()
    again = Maker()
    dataset(folder).save(plan(again))
    assert again.made == ["item3", "item4", "item5"]  # the batch is computed whole
    assert tree(folder) == reference


def test_all_failed_is_an_error_and_the_folder_does_not_count(folder):
    with pytest.raises(DatasetError) as caught:
        dataset(folder).save(plan(Maker(fails={"item0", "item1"}), count=2))
    assert isinstance(caught.value.__cause__, InputError)
    assert "all 2 things failed" in str(caught.value)
    assert not dataset(folder).exists()


def test_resumes_after_an_exception(folder, reference):
    interrupted = Maker(stop_at="item4")
    with pytest.raises(DatasetError, match="power cut"):
        dataset(folder).save(plan(interrupted))
    assert not dataset(folder).exists()
    with pytest.raises(DatasetError, match="not complete"):
        dataset(folder).load()
    resumed = Maker()
    dataset(folder).save(plan(resumed))
    assert interrupted.made + resumed.made == [f"item{n}" for n in range(7)]
    assert tree(folder) == reference


def test_a_kill_between_the_final_manifest_and_the_end_of_the_partial_one_leaves_nothing_to_do(folder, reference):
    dataset(folder).save(plan(Maker()))
    header = {"version": 1, "format": JsonFormat().model_dump()}
    (folder / PARTIAL_MANIFEST).write_text(json.dumps(header) + "\n", encoding="utf-8")
    assert not dataset(folder).exists()
    again = Maker()
    dataset(folder).save(plan(again))
    assert again.made == []
    assert dataset(folder).exists()
    assert tree(folder) == reference


def test_committed_items_of_an_unfinished_batch_are_not_rewritten(folder, reference):
    dataset(folder).save(plan(Maker(), count=7))
    (folder / "item1.json").unlink()
    kept = (folder / "item0.json").stat().st_ino
    again = Maker()
    dataset(folder).save(plan(again))
    assert again.made == ["item0", "item1", "item2"]
    assert (folder / "item0.json").stat().st_ino == kept
    assert tree(folder) == reference


@pytest.mark.parametrize("cut", [0, 5, 60, -1, -30, -200])
def test_truncated_partial_manifest(folder, reference, cut):
    with pytest.raises(DatasetError):
        dataset(folder).save(plan(Maker(stop_at="item6")))
    partial = folder / PARTIAL_MANIFEST
    partial.write_bytes(partial.read_bytes()[:cut])
    dataset(folder).save(plan(Maker()))
    assert tree(folder) == reference


@given(position=st.integers(0, 10_000), value=st.binary(min_size=1, max_size=3), name=st.integers(0, 20))
def test_any_damage_to_any_file_heals(tmp_path_factory, position, value, name):
    folder = tmp_path_factory.mktemp("damage") / "things"
    dataset(folder).save(plan(Maker()))
    undisturbed = tree(folder)
    victim = sorted(folder.iterdir())[name % len(undisturbed)]
    content = bytearray(victim.read_bytes())
    position %= len(content) + 1
    content[position : position + len(value)] = value
    victim.write_bytes(content)
    dataset(folder).save(plan(Maker()))
    assert tree(folder) == undisturbed


def test_corruption_is_seen_by_hash_and_truncation_on_load(folder, reference):
    dataset(folder).save(plan(Maker()))
    victim = folder / "item5.json"
    original = victim.read_bytes()
    victim.write_bytes(original.replace(b"item5", b"item6"))
    assert dataset(folder).load().damaged() == ["item5"]
    victim.write_bytes(original[:-3])
    with pytest.raises(DatasetError, match=r"item5.json.*missing or not whole"):
        dataset(folder).load()
    dataset(folder).save(plan(Maker()))
    assert tree(folder) == reference


def test_another_identity_makes_items_stale(folder):
    dataset(folder).save(plan(Maker()))
    with pytest.raises(DatasetError):
        dataset(folder).save(plan(Maker(stop_at="item3"), identity="v2"))
    assert not dataset(folder).exists()
    assert {path.name for path in folder.glob("item*")} == {"item0.json", "item1.json", "item2.json"}
    dataset(folder).save(plan(Maker(), identity="v2"))
    assert {dataset(folder).load().load(f"item{n}")["identity"] for n in range(7)} == {f"v2-item{n}" for n in range(7)}


def test_a_smaller_plan_removes_what_it_does_not_name(folder):
    dataset(folder).save(plan(Maker(), count=7))
    maker = Maker()
    dataset(folder).save(plan(maker, count=3))
    assert maker.made == []
    assert set(tree(folder)) == {"item0.json", "item1.json", "item2.json", MANIFEST}


def test_new_annotations_do_not_make_items_again(folder):
    dataset(folder).save(plan(Maker(), old=1))
    maker = Maker()
    dataset(folder).save(plan(maker, new=2))
    assert maker.made == []
    records = dataset(folder).load().records
    assert set(records["new"]) == {2}
    assert "old" not in records


def test_strangers_and_half_written_files_are_removed(folder, reference, tmp_path):
    dataset(folder).save(plan(Maker()))
    (folder / "stray.json").write_text("{}")
    (folder / ".tmp-item3.json").write_text("half")
    (folder / "subfolder").mkdir()
    (folder / "subfolder" / "x").write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("keep")
    (folder / "link").symlink_to(outside)
    maker = Maker()
    dataset(folder).save(plan(maker))
    assert maker.made == []
    assert tree(folder) == reference
    assert (outside / "precious").read_text() == "keep"


def test_somebody_elses_folder_is_not_cleared(folder):
    folder.mkdir()
    (folder / "holiday.mp4").write_text("precious")
    with pytest.raises(DatasetError, match=r"no manifest.*holiday.mp4"):
        dataset(folder).save(plan(Maker()))
    assert (folder / "holiday.mp4").read_text() == "precious"


def test_another_format_makes_items_stale(folder):
    dataset(folder).save(plan(Maker()))
    with pytest.raises(DatasetError, match="were stored as"):
        dataset(folder, type="table").load()
    store = dataset(folder, type="table")
    items = [WorkItem(f"item{n}", f"v1-item{n}") for n in range(2)]
    store.save(WorkPlan(items, lambda _, batch: [pd.DataFrame({"a": [1, 2]})] * len(batch)))
    (pack,) = set(tree(folder)) - {MANIFEST}
    assert pack.endswith(".arrows.zst")
    pd.testing.assert_frame_equal(store.load().load("item1"), pd.DataFrame({"a": [1, 2]}))


def test_a_manifest_from_before_an_option_existed_holds_with_its_default(folder):
    frames = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    calls = []
    clips = WorkPlan([WorkItem("a", "1")], lambda _, batch: calls.append(1) or [frames])
    dataset(folder, type="video").save(clips)
    content = json.loads((folder / MANIFEST).read_text())
    for option in ("crf", "preset"):
        del content["format"][option]
    (folder / MANIFEST).write_text(json.dumps(content))
    assert dataset(folder, type="video").load().keys == ["a"]
    dataset(folder, type="video").save(clips)
    assert len(calls) == 1
    with pytest.raises(DatasetError, match="were stored as"):
        dataset(folder, type="video", crf=5).load()


def test_arrays_keep_shape_type_and_values(tmp_path):
    torch = pytest.importorskip("torch")
    arrays = {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "scalar": np.array(2.5),
        "bytes": np.arange(5, dtype=np.uint8)[::2],
    }
    item = [WorkItem("a", "1")]
    store = dataset(tmp_path / "numpy", type="safetensors")
    store.save(WorkPlan(item, lambda _, batch: [arrays]))
    loaded = store.load().load("a")
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    shared = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    store = dataset(tmp_path / "torch", type="safetensors", framework="torch")
    store.save(WorkPlan(item, lambda _, batch: [{"x": shared.T, "y": shared, "z": np.ones(2)}]))
    loaded = store.load().load("a")
    assert torch.equal(loaded["x"], shared.T)
    assert torch.equal(loaded["y"], shared)
    assert loaded["x"].dtype is torch.bfloat16


def test_clips_come_back_as_they_were(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    plan_of_clips = WorkPlan([WorkItem("a", "1", {"fps": 4.0})], lambda _, batch: [frames])
    store = dataset(tmp_path / "clips", type="video", enlarge=4)
    store.save(plan_of_clips)
    loaded = store.load()
    np.testing.assert_array_equal(loaded.load("a"), frames)
    assert loaded.records.loc[0, ["num_frames", "fps", "height", "width"]].tolist() == [8, 4.0, 64, 64]
    dataset(tmp_path / "again", type="video", enlarge=4).save(plan_of_clips)
    assert tree(tmp_path / "again") == tree(tmp_path / "clips")


def test_unknown_format_options_are_rejected(folder):
    with pytest.raises(DatasetError, match="fpss"):
        ManifestFolderDataset.from_config(
            "videos", {"type": ManifestFolderDataset, "path": str(folder), "format": {"type": "video", "fpss": 8}}
        )


@given(st.text(min_size=1, max_size=300))
def test_no_key_leaves_the_folder(key):
    name = item_filename(key, ".json")
    assert Path(name).name == name
    assert not name.startswith(".")
    assert name not in {MANIFEST, PARTIAL_MANIFEST}
    assert len(name.encode()) < 200
    assert name == name.lower()


@given(st.lists(st.text(min_size=1, max_size=12), unique=True, min_size=2, max_size=20))
def test_different_keys_have_different_files(keys):
    assert len({item_filename(key, ".mp4") for key in keys}) == len(keys)


def test_hostile_keys_are_stored_inside(folder, tmp_path):
    keys = ["../../evil", "/etc/passwd", "manifest", "A", "a", "con/../x", "..", "\0"]
    dataset(folder).save(plan(Maker(), keys=keys))
    assert {path.name for path in tmp_path.iterdir()} == {"things", ".things.lock", ".things.verified.lock"}
    loaded = dataset(folder).load()
    assert [loaded.load(key)["key"] for key in keys] == keys


def test_a_manifest_that_points_outside_is_rejected(folder):
    dataset(folder).save(plan(Maker(), count=1))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["items"][0]["filename"] = "../secret.json"
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match=r"items\.0\.filename"):
        dataset(folder).load()


def test_repeated_keys_are_rejected(folder):
    with pytest.raises(DatasetError, match=r"'x' of things repeats \(item 3\)"):
        dataset(folder).save(plan(Maker(), keys=["x", "y", "x"]))


def test_a_batch_of_the_wrong_length_is_rejected(folder):
    with pytest.raises(DatasetError, match="returned 1 contents for 2"):
        dataset(folder).save(WorkPlan([WorkItem("a", "1"), WorkItem("b", "1")], lambda _, batch: [{}], batch_size=2))


def test_an_empty_plan_makes_an_empty_folder(folder):
    dataset(folder).save(plan(Maker(), count=0))
    assert dataset(folder).exists()
    assert dataset(folder).load().records.empty


def test_batches_may_arrive_in_any_order(folder, reference):
    def backwards(work, batches):
        yield from reversed(list(run_in_process(work, batches)))

    with use_loop(backwards):
        dataset(folder).save(plan(Maker()))
    assert tree(folder) == reference


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space is left on the disk"),
        (errno.EDQUOT, "no space is left on the disk"),
        (errno.EROFS, "the folder cannot be written"),
        (errno.EACCES, "the folder cannot be written"),
    ],
)
def test_a_write_that_fails_names_the_cause_and_keeps_what_is_there(folder, reference, monkeypatch, number, message):
    original = JsonFormat.write

    def failing(self, path, content, item):
        if item.key == "item4":
            path.write_text("half")
            raise OSError(number, os.strerror(number), str(path))
        return original(self, path, content, item)

    monkeypatch.setattr(JsonFormat, "write", failing)
    with pytest.raises(DatasetError, match=message):
        dataset(folder).save(plan(Maker()))
    assert not list(folder.glob(".tmp*"))
    monkeypatch.setattr(JsonFormat, "write", original)
    resumed = Maker()
    dataset(folder).save(plan(resumed))
    assert resumed.made == ["item3", "item4", "item5", "item6"]
    assert tree(folder) == reference


def test_errors_of_the_work_are_not_explained_as_the_folders(folder):
    def denied(_, batch):
        raise PermissionError(errno.EACCES, "Permission denied", "/weights")

    with pytest.raises(DatasetError) as caught:
        dataset(folder).save(WorkPlan([WorkItem("a", "1")], denied))
    assert isinstance(caught.value.__cause__, PermissionError)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="a file stands where a folder should be"):
        dataset(tmp_path / "file" / "things").save(plan(Maker()))


@contextmanager
def without_the_rights_of_root() -> Iterator[None]:
    """Root may write everywhere; as anybody else the test means something."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_folder_that_became_read_only_keeps_what_it_has(reference):
    # Not below tmp_path, which nobody but its owner may enter.
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "things"
        with pytest.raises(DatasetError):
            dataset(folder).save(plan(Maker(stop_at="item4")))
        before = tree(folder)
        for path in (Path(place), folder):
            path.chmod(0o555)
        (folder.parent / f".{folder.name}.lock").chmod(0o666)
        with without_the_rights_of_root(), pytest.raises(DatasetError, match="the folder cannot be written"):
            dataset(folder).save(plan(Maker()))
        assert tree(folder) == before
        for path in (Path(place), folder):
            path.chmod(0o755)
        resumed = Maker()
        dataset(folder).save(plan(resumed))
        assert resumed.made == ["item3", "item4", "item5", "item6"]
        assert tree(folder) == reference


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions of POSIX")
def test_a_folder_that_may_not_be_made_is_told():
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o555)
        with without_the_rights_of_root(), pytest.raises(DatasetError, match="the folder cannot be written"):
            dataset(Path(place) / "things").save(plan(Maker()))
        assert list(Path(place).iterdir()) == []


SLOW_RUN = textwrap.dedent(
    """
    import sys, time
    from vr_pipeline.datasets.manifest import ManifestFolderDataset
    from vr_pipeline.work import WorkItem, WorkPlan

    def make(_, batch):
        time.sleep(float(sys.argv[2]))
        keys = [item.key for item in batch]
        with open(sys.argv[3], "a") as log:
            log.write("".join(f"{key}\\n" for key in keys))
        return [{"key": item.key, "identity": item.identity, "batch": keys} for item in batch]

    items = [WorkItem(f"item{n}", f"v1-item{n}") for n in range(7)]
    plan = WorkPlan(items, make, batch_size=3, description="things")
    ManifestFolderDataset(path=sys.argv[1], format={"type": "json"}).save(plan)
    """
)


def start(folder: Path, seconds: float, log: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(folder), str(seconds), str(log)])


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def recorded(folder: Path) -> str:
    """What the journal of an unfinished folder holds."""
    journal = folder / PARTIAL_MANIFEST
    return journal.read_text(encoding="utf-8") if journal.exists() else ""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_continued(folder, reference, tmp_path, how):
    log = tmp_path / "log"
    process = start(folder, 1.5, log)
    # An item counts as made once it is in the journal; a kill between its file and its line makes its batch again.
    wait_for(lambda: '"item2"' in recorded(folder))
    process.send_signal(how)
    assert process.wait(timeout=10) != 0
    assert not dataset(folder).exists()
    start(folder, 0, log).wait(timeout=60)
    made = log.read_text().split()
    assert sorted(made) == [f"item{n}" for n in range(7)]
    assert tree(folder) == reference


def test_the_second_of_two_runs_stops_with_a_word(folder, reference, tmp_path):
    process = start(folder, 1.0, tmp_path / "log")
    try:
        wait_for(lambda: (folder / PARTIAL_MANIFEST).exists())
        second = Maker()
        with pytest.raises(DatasetError, match="another run is writing this folder"):
            dataset(folder).save(plan(second))
        assert second.made == []
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert tree(folder) == reference
