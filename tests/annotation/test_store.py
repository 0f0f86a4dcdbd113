"""The journal: only grows, survives crashes, and gives back what was written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.annotation.conftest import make_label

from vr_pipeline.annotation import store
from vr_pipeline.annotation.store import AlreadyAnswered, Journal
from vr_pipeline.errors import InputError
from vr_pipeline.preferences.journal import Study, read_labels, read_study

STUDY = Study(study="test", source="generated")


@pytest.fixture
def journal(tmp_path: Path):
    opened = Journal(tmp_path / "deep" / "journal.jsonl", STUDY)
    yield opened
    opened.close()


def test_what_is_written_is_read_back_and_the_file_only_grows(journal: Journal) -> None:
    sizes = [journal.path.stat().st_size]
    for number in range(3):
        assert journal.add(make_label(number))
        sizes.append(journal.path.stat().st_size)
    assert journal.undo("Ada", at="now") == make_label(2)
    sizes.append(journal.path.stat().st_size)
    assert sizes == sorted(set(sizes))
    assert read_labels(journal.path) == [make_label(0), make_label(1)] == journal.labels()
    assert read_study(journal.path) == STUDY


def test_an_answer_sent_twice_counts_once_even_after_it_was_taken_back(journal: Journal) -> None:
    assert journal.add(make_label(0))
    assert not journal.add(make_label(0))
    with pytest.raises(AlreadyAnswered):
        journal.add(make_label(0, label="another-label"))
    assert journal.add(make_label(0, label="of another", annotator="Bob"))
    assert journal.add(make_label(0, label="of another criterion", criterion="quality"))
    assert journal.undo("Bob", at="now").annotator == "Bob"  # type: ignore[union-attr]
    assert not journal.add(make_label(0, label="of another", annotator="Bob"))
    assert journal.undo("Bob", at="now") is None
    assert [label.annotator for label in journal.labels()] == ["Ada", "Ada"]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(min_value=0, max_value=5000), number=st.integers(min_value=1, max_value=4))
def test_a_crash_at_any_byte_loses_only_the_line_being_written(tmp_path_factory, cut: int, number: int) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    first = Journal(path, STUDY)
    ends = [path.stat().st_size]
    for k in range(number):
        first.add(make_label(k))
        ends.append(path.stat().st_size)
    first.close()
    cut = min(max(cut, ends[0]), ends[-1])  # the first line is written whole before the file has its name
    os.truncate(path, cut)
    finished = sum(end <= cut for end in ends[1:])
    assert read_labels(path) == [make_label(k) for k in range(finished)]
    again = Journal(path, STUDY)
    again.add(make_label(number + 7))
    again.close()
    assert read_labels(path) == [*(make_label(k) for k in range(finished)), make_label(number + 7)]


def test_a_write_that_fails_leaves_no_trace(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.add(make_label(0))
    before = journal.path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            journal.add(make_label(1))
    assert journal.path.read_bytes() == before
    assert journal.labels() == [make_label(0)]
    assert journal.add(make_label(1))
    assert read_labels(journal.path) == [make_label(0), make_label(1)]


def test_one_writer_at_a_time_and_a_killed_one_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    code = (
        "import os, sys\n"
        "from vr_pipeline.annotation.store import Journal, Study\n"
        "journal = Journal(sys.argv[1], Study(study='test', source='generated'))\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    with pytest.raises(InputError, match=r"another annotation server.*--study"):
        Journal(path, STUDY)
    process.kill()
    process.wait()
    Journal(path, STUDY).close()


def test_a_journal_of_another_study_and_foreign_files_are_rejected(tmp_path: Path, journal: Journal) -> None:
    path = journal.path
    journal.close()
    with pytest.raises(InputError, match="not about the policies original and mpo"):
        Journal(path, Study(study="test", source="policies", policies=("original", "mpo")))
    path.write_text(path.read_text() + '{"event": "label"}\n')
    with pytest.raises(InputError, match="row 2"):
        read_labels(path)
    (tmp_path / "other.jsonl").write_text('{"prompt": "a cat"}\n')
    for read in (read_labels, read_study):
        with pytest.raises(InputError, match="row 1"):
            read(tmp_path / "other.jsonl")
        with pytest.raises(InputError, match="the journal of annotations is missing"):
            read(tmp_path / "missing.jsonl")
