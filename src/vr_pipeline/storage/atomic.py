"""Atomic replacement of files and folders, and detection of files that changed after they were written.

Nothing is written in place: a kill leaves the old file or the new one, and a link of another tool (DVC links its cache
into the project) is replaced, never written through.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".tmp-"
"""Prefix of the names under which files are written; files with it were left by a kill and can be removed."""

CHECKSUMS = "checksums.sha256"
PRIVATE = 0o640
_FOR_ALL = 0o666
_LONGEST_NAME = 255


def temporary_name(path: Path) -> Path:
    """Return the name under which a file is written before it is renamed: in the same folder, with the same ending."""
    name = f"{TEMPORARY_PREFIX}{path.name}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f"{TEMPORARY_PREFIX}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{path.suffix[:32]}"
    return path.with_name(name)


@contextmanager
def replaced(path: Path, *, durable: bool = True, mode: int = _FOR_ALL) -> Iterator[Path]:
    """Return a name to write to, whose file (or folder) replaces ``path`` at the end of the block.

    After an error ``path`` is unchanged. Access rights follow the user's umask, not the writer's choice.

    Args:
        path: the file or folder to replace; its parent is made.
        durable: write the content to the disk before the name, so that a power failure leaves the old or the new file;
            too slow for many files that are verified otherwise.
        mode: access rights before the umask; :data:`PRIVATE` for files that others must not read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    remove(temporary)
    # The umask cannot be read without setting it for all threads; an empty file shows it.
    make_file(temporary, mode)
    left = temporary.stat().st_mode & 0o777
    try:
        if mode == _FOR_ALL:
            temporary.unlink()  # Some write a folder.
        yield temporary
        if temporary.is_dir():
            _complete_folder(temporary)
            _exchange_folder(temporary, path)
        else:
            # Files of safetensors would be readable by their owner only.
            temporary.chmod(left)
            if durable:
                sync(temporary)
            os.replace(temporary, path)
        if durable:
            sync(path.parent)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text in UTF-8 with unchanged line ends."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Return an empty folder to write to, which replaces ``folder`` at the end of the block.

    The old one is moved aside and deleted only then, so that a kill loses neither. After an error within the block it
    is unchanged.
    """
    recover_folder(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    temporary.mkdir(parents=True)
    yield temporary
    _complete_folder(temporary)
    _exchange_folder(temporary, folder)


def recover_folder(folder: Path) -> None:
    """Undo an exchange of folders that a kill interrupted, and remove what it left."""
    old = _aside(folder)
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    for leftover in (old, folder.with_name(f".{folder.name}.tmp")):
        remove(leftover)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _exchange_folder(fresh: Path, folder: Path) -> None:
    old = _aside(folder)
    remove(old)
    if os.path.lexists(folder):
        os.replace(folder, old)
    os.replace(fresh, folder)
    sync(folder.parent)
    remove(old)


def _complete_folder(folder: Path) -> None:
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            sync(path)
    sync(folder)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file or the names in a folder to the disk, if the system can."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unlink_shared(path: Path, *, mode: int = _FOR_ALL) -> None:
    """Replace a file by its own copy before it is appended to, if it is a link to shared content."""
    if path.is_file() and (path.is_symlink() or path.stat().st_nlink > 1):
        with replaced(path, mode=mode) as temporary:
            shutil.copyfile(path, temporary)


def make_file(path: Path, mode: int = PRIVATE) -> None:
    """Make an empty file with these access rights, reduced by the umask."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))


def sha256_of(path: Path) -> str:
    """Return hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of a folder's files into it, as ``sha256sum`` does, without documents, which people edit."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files if path.name != CHECKSUMS]
    write_text(folder / CHECKSUMS, "".join(lines))


def damaged_file(folder: Path) -> Path | None:
    """Return the first file of a folder that is missing or differs from :func:`write_checksums`; None for none.

    A process reads every file once, and again if its size or times have changed. A folder without checksums is not
    checked.
    """
    listing = folder / CHECKSUMS
    if not listing.is_file():
        return None
    for line in listing.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / name
        if not name or not path.resolve().is_relative_to(folder.resolve()):
            return listing
        if not path.is_file() or sha256_once(path) != digest:
            return path
    return None


def sha256_once(path: Path) -> str:
    """Return :func:`sha256_of` a file, cached in this process while the file's size and times are unchanged."""
    return _sha256_of_state(path, *_size_and_times(path))


def names_and_hashes(files: Iterable[Path], folder: Path) -> list[str]:
    """Return relative path and SHA-256 of every file in one list."""
    return [part for path in files for part in (path.relative_to(folder).as_posix(), sha256_once(path))]


@lru_cache(maxsize=4096)
def _sha256_of_state(path: Path, *_: int) -> str:
    return sha256_of(path)


class Fingerprints:
    """The SHA-256 of a folder's files; files of unchanged size and times are not read again.

    Hashes are stored beside the folder, in a file named like its lock, so that git and DVC ignore it. Without it, the
    files are read once more.
    """

    def __init__(self, folder: Path) -> None:
        self._place = folder.with_name(f".{folder.name}.verified.lock")
        self._folder = folder
        self._known: dict[str, list[Any]] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._place.read_text(encoding="utf-8"))
            self._known = found if isinstance(found, dict) else {}

    def of(self, name: str) -> str:
        """Return hexadecimal SHA-256 of a file; empty if there is none."""
        path = self._folder / name
        if not path.is_file():
            return ""
        if not self.is_as_noted(name):
            self.note(name, sha256_of(path))
        return str(self._known[name][-1])

    def is_as_noted(self, name: str) -> bool:
        """Return whether a file is known and its size and times are unchanged."""
        path, known = self._folder / name, self._known.get(name)
        return isinstance(known, list) and path.is_file() and known[:-1] == _size_and_times(path)

    def note(self, name: str, sha256: str) -> None:
        """Record the hash of a file that was just written."""
        self._known[name] = [*_size_and_times(self._folder / name), sha256]

    def save(self, names: Iterable[str]) -> None:
        """Store the hashes of these files for later processes."""
        known = {name: self._known[name] for name in sorted(names) if name in self._known}
        with replaced(self._place, durable=False) as temporary:
            temporary.write_text(json.dumps(known), encoding="utf-8")


def _size_and_times(path: Path) -> list[Any]:
    # Both times, because the second also changes when the first is set back.
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
