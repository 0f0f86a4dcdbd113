"""Turns at a folder that several processes make."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vr_pipeline.errors import storage_explained


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process is within this block for the same folder; the turn of one that dies ends.

    The lock is a file beside the folder, whose parents are made.

    Raises:
        InputError: the disk rejects the file.
    """
    from filelock import FileLock

    lock = FileLock(folder.with_name(f".{folder.name}.turn.lock"))
    with storage_explained(folder, "finished items are kept"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
