"""Hashes of files and folders as computed by DVC, so that runs without DVC can be compared with its records."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_IGNORED_BY_DVC = (".dvc", ".git", ".hg")
_THREADS = 8


@dataclass(frozen=True)
class Digest:
    """The content of a file or folder.

    Args:
        md5: of a file its MD5; of a folder the MD5 of DVC's listing of it, with the ending ``.dir``.
        files: number of files of a folder; None for a file.
    """

    md5: str
    size: int
    files: int | None = None

    def to_lock(self, path: str) -> dict[str, Any]:
        """Return the entry of dvc.lock for this content at ``path``."""
        counted = {} if self.files is None else {"nfiles": self.files}
        return {"path": path, "hash": "md5", "md5": self.md5, "size": self.size, **counted}

    @classmethod
    def from_lock(cls, entry: dict[str, Any]) -> Digest:
        """Return the content that an entry of dvc.lock describes."""
        return cls(str(entry.get("md5", "")), int(entry.get("size", 0)), entry.get("nfiles"))


def digest(path: Path, ignored: tuple[str, ...] = ()) -> Digest | None:
    """Return the digest of a file or folder; None if it does not exist.

    Args:
        ignored: names and patterns that DVC ignores in folders (see :func:`ignored_names`).

    Raises:
        OSError: a file cannot be read.
    """
    if path.is_file():
        return Digest(_md5(path), path.stat().st_size)
    if not path.is_dir():
        return None
    files = sorted(_files(path, ignored), key=lambda file: file.relative_to(path).parts)
    with ThreadPoolExecutor(_THREADS) as pool:
        hashes = list(pool.map(_md5, files))
    listing = [
        {"md5": own, "relpath": file.relative_to(path).as_posix()} for own, file in zip(hashes, files, strict=True)
    ]
    text = json.dumps(listing, sort_keys=True).encode()
    whole = hashlib.md5(text, usedforsecurity=False).hexdigest()
    return Digest(f"{whole}.dir", sum(file.stat().st_size for file in files), len(files))


def ignored_names(project: Path) -> tuple[str, ...]:
    """Return the patterns of .dvcignore that are plain names; others concern paths outside data."""
    file = project / ".dvcignore"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    stripped = (line.strip() for line in lines)
    return tuple(line.rstrip("/") for line in stripped if line and line[0] not in "#!" and "/" not in line.rstrip("/"))


def _files(folder: Path, ignored: tuple[str, ...]) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if name not in _IGNORED_BY_DVC and not _matches(name, ignored)]
        yield from (Path(root, name) for name in names if not _matches(name, ignored) and name != ".dvcignore")


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
