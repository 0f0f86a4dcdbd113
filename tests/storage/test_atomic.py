"""Files and folders are replaced as a whole or not at all, and what is known of files is verified cheaply."""

from __future__ import annotations

import hashlib
import os
import stat

import pytest

from vr_pipeline.storage import atomic as storage
from vr_pipeline.storage.atomic import (
    CHECKSUMS,
    PRIVATE,
    Fingerprints,
    damaged_file,
    recover_folder,
    replaced,
    replaced_folder,
    sha256_of,
    unlink_shared,
    write_checksums,
    write_text,
)


def test_the_new_folder_takes_the_place_of_the_old(tmp_path):
    place = tmp_path / "model"
    for content in ("first", "second"):
        with replaced_folder(place) as folder:
            (folder / content).write_text(content)
        assert [path.name for path in place.iterdir()] == [content]
        assert list(tmp_path.iterdir()) == [place]


def test_files_that_only_their_owner_could_read_are_readable(tmp_path):
    with replaced_folder(tmp_path / "model") as folder:
        (folder / "part").mkdir()
        (folder / "part" / "weights").write_text("x")
        (folder / "part" / "weights").chmod(0o600)
    assert (tmp_path / "model" / "part" / "weights").stat().st_mode & 0o777 == 0o644


def test_an_error_leaves_the_old_folder(tmp_path):
    place = tmp_path / "model"
    with replaced_folder(place) as folder:
        (folder / "old").write_text("old")

    def fail():
        with replaced_folder(place) as folder:
            (folder / "half").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert [path.name for path in place.iterdir()] == ["old"]


def test_an_exchange_that_a_kill_cut_off_is_undone(tmp_path):
    place = tmp_path / "model"
    (tmp_path / ".model.old").mkdir()
    (tmp_path / ".model.old" / "old").write_text("old")
    (tmp_path / ".model.tmp").mkdir()
    recover_folder(place)
    assert [path.name for path in place.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    ("umask", "given", "expected"),
    [(0o022, 0o666, 0o644), (0o077, 0o666, 0o600), (0o000, PRIVATE, 0o640), (0o077, PRIVATE, 0o600)],
)
def test_access_rights_are_what_the_umask_leaves(tmp_path, umask, given, expected):
    before = os.umask(umask)
    try:
        with replaced(tmp_path / "a", mode=given) as temporary:
            temporary.write_text("x")
            temporary.chmod(0o600)  # as some writers do
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == expected


def test_a_long_name_has_a_shorter_one_while_it_is_written(tmp_path):
    place = tmp_path / f"{'a' * 250}.json"
    write_text(place, "x")
    assert place.read_text() == "x"
    assert list(tmp_path.iterdir()) == [place]


def test_a_file_is_read_again_only_if_its_size_or_times_changed(tmp_path, monkeypatch):
    folder = tmp_path / "items"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    first = Fingerprints(folder)
    digests = {name: first.of(name) for name in ("a", "b")}
    assert digests["a"] == hashlib.sha256(b"a").hexdigest()
    first.save(["a", "b"])

    read = []
    monkeypatch.setattr(storage, "sha256_of", lambda path: read.append(path.name) or sha256_of(path))
    again = Fingerprints(folder)
    assert {name: again.of(name) for name in ("a", "b")} == digests
    assert read == []
    times = (folder / "a").stat()
    (folder / "a").write_text("x")
    os.utime(folder / "a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert Fingerprints(folder).of("a") == hashlib.sha256(b"x").hexdigest()
    assert read == ["a"]
    assert Fingerprints(folder).of("missing") == ""


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a": 3}', b"\xff"])
def test_what_is_known_of_files_may_be_damaged(tmp_path, damage):
    folder = tmp_path / "items"
    folder.mkdir()
    (folder / "a").write_text("a")
    Fingerprints(folder).save([])
    (tmp_path / ".items.verified.lock").write_bytes(damage)
    assert Fingerprints(folder).of("a") == hashlib.sha256(b"a").hexdigest()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_that_others_share_becomes_ones_own(tmp_path, link):
    (tmp_path / "cache").write_text("a")
    link(tmp_path / "cache", tmp_path / "file")
    unlink_shared(tmp_path / "file")
    with (tmp_path / "file").open("a") as file:
        file.write("b")
    assert ((tmp_path / "cache").read_text(), (tmp_path / "file").read_text()) == ("a", "ab")


def test_a_folder_says_which_of_its_files_is_damaged(tmp_path):
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "weights").write_bytes(b"weights")
    (folder / "README.md").write_text("mine to edit")
    assert damaged_file(folder) is None, "nothing was recorded"
    write_checksums(folder)
    write_checksums(folder)
    listed = f"{hashlib.sha256(b'weights').hexdigest()}  part/weights\n"
    assert (folder / CHECKSUMS).read_text() == listed, "the format of sha256sum"
    (folder / "README.md").write_text("edited")
    assert damaged_file(folder) is None
    (folder / "part" / "weights").write_bytes(b"Weights")
    assert damaged_file(folder) == folder / "part" / "weights"
    (folder / "part" / "weights").unlink()
    assert damaged_file(folder) == folder / "part" / "weights"
    (folder / CHECKSUMS).write_text(f"{'0' * 64}  ../elsewhere\n")
    assert damaged_file(folder) == folder / CHECKSUMS
