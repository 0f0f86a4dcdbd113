"""Our hashes are DVC's own, on whatever files and folders there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vr_pipeline.lineage.hashes import Digest, digest, ignored_names


def of_dvc(path: Path) -> tuple[str, int, int | None]:
    """What DVC's own library says."""
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_objects.fs.local import LocalFileSystem

    files = LocalFileSystem()
    _, meta, found = build(HashFileDB(files, str(path.parent / "cache")), str(path), files, "md5", dry_run=True)
    return found.hash_info.value, meta.size, meta.nfiles


NAMES = st.text("ab c.-_\u00e9Z0", min_size=1, max_size=6).filter(lambda name: name.strip(" .") == name)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(st.tuples(NAMES, NAMES), st.binary(max_size=30), min_size=1, max_size=6))
def test_folders_have_the_hash_of_dvc(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hashes") / "folder"
    for (parent, name), content in files.items():
        (folder / f"{parent}x").mkdir(parents=True, exist_ok=True)
        (folder / f"{parent}x" / name).write_bytes(content)
        (folder / f"{name}.top").write_bytes(content + b"top")
    found = digest(folder)
    assert found is not None
    assert (found.md5, found.size, found.files) == of_dvc(folder)
    assert Digest.from_lock(found.to_lock("folder")) == found


@pytest.mark.parametrize("content", [b"", b"a\r\nb\n", bytes(range(256)) * 9000])
def test_files_have_the_hash_of_dvc(tmp_path, content):
    file = tmp_path / "file"
    file.write_bytes(content)
    found = digest(file)
    assert found is not None
    assert (found.md5, found.size, found.files) == of_dvc(file)


def test_what_is_not_there_has_none(tmp_path):
    assert digest(tmp_path / "nothing") is None


def test_ignored_names_do_not_count(tmp_path):
    (tmp_path / ".dvcignore").write_text("# comment\n__pycache__/\n*.pyc\nsome/path\n!kept\n\n")
    assert ignored_names(tmp_path) == ("__pycache__", "*.pyc")
    folder = tmp_path / "folder"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "a").write_text("a")
    alone = digest(folder, ignored_names(tmp_path))
    (folder / "__pycache__" / "b").write_text("b")
    (folder / "c.pyc").write_text("c")
    assert digest(folder, ignored_names(tmp_path)) == alone
    assert digest(folder) != alone
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("d")
    assert digest(folder, ignored_names(tmp_path)) == alone
