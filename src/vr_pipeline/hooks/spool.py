"""Files of a run on their way to the tracking store: as they were when the run ended, whatever the next run writes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

PLACE = Path("logs") / "tracking"


class Spool:
    """A folder of this run for files to send.

    Files are linked where the file system can, so that they take no space, and copied elsewhere.

    Args:
        project: the project's folder.
    """

    def __init__(self, project: Path) -> None:
        self._place = project / PLACE
        self._root: Path | None = None
        self._lock: FileLock | None = None
        self._count = 0

    def folder(self, name: str) -> Path:
        """A new, empty folder whose last part is ``name``."""
        self._count += 1
        made = self._opened() / str(self._count) / name
        made.mkdir(parents=True)
        return made

    def take(self, place: Path) -> Path:
        """Have a file or folder as it is now.

        Raises:
            OSError: it can be neither linked nor copied.
        """
        self._count += 1
        target = self._opened() / str(self._count) / place.name
        target.parent.mkdir()
        if place.is_dir():
            shutil.copytree(place, target, copy_function=_link)
        else:
            _link(str(place), str(target))
        return target

    def remove(self) -> None:
        """Remove everything; nothing can be sent afterwards."""
        if self._lock is not None:
            self._lock.release()
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
        self._root, self._lock = None, None

    def _opened(self) -> Path:
        if self._root is None:
            self._place.mkdir(parents=True, exist_ok=True)
            self._remove_dead()
            root = Path(tempfile.mkdtemp(dir=self._place))
            self._lock = FileLock(root / ".lock")
            self._lock.acquire(timeout=0)
            self._root = root
        return self._root

    def _remove_dead(self) -> None:
        """Remove what runs have left that were killed: a process that lives holds its lock."""
        for other in self._place.iterdir():
            with contextlib.suppress(Timeout, OSError):
                lock = FileLock(other / ".lock")
                lock.acquire(timeout=0)
                shutil.rmtree(other, ignore_errors=True)
                lock.release()


def _link(source: str, target: str) -> str:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
    return target
