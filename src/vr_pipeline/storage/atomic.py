"""Files and folders that take the place of old ones at once, and whether a file still is what was written.

Nothing of the project is written in place: a kill leaves the old file or the new one, and a link that another tool
put there (DVC links its cache into the project) is replaced, never written through.
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
"""Beginning of the names under which files are written; what carries it was left by a kill and means nothing."""

CHECKSUMS = "checksums.sha256"
PRIVATE = 0o640
_FOR_ALL = 0o666
_LONGEST_NAME = 255


def temporary_name(path: Path) -> Path:
    """Return where a file is written before it takes its place: beside it, with the same ending."""
    name = f"{TEMPORARY_PREFIX}{path.name}"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f"{TEMPORARY_PREFIX}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{path.suffix[:32]}"
    return path.with_name(name)


@contextmanager
def replaced(path: Path, *, durable: bool = True, mode: int = _FOR_ALL) -> Iterator[Path]:
    """Return a name to write to, whose file (or folder) takes the place of ``path`` at the end of the block.

    After an error ``path`` is as it was. Access rights are what the user's umask leaves, whatever the writer chose.

    Args:
        path: what is replaced; its folder is made.
        durable: the content reaches the disk before the name does, so that a power failure leaves the old or the new
            file; for files that something else verifies this costs more than it brings.
        mode: access rights before the umask, :data:`PRIVATE` for what others should never read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    remove(temporary)
    # The umask cannot be asked for without being set, for all threads; an empty file shows it.
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
            # What safetensors writes only its owner could read.
            temporary.chmod(left)
            if durable:
                sync(temporary)
            os.replace(temporary, path)
        if durable:
            sync(path.parent)
    finally:
        remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Replace a file by a text in UTF-8 with line ends as they are."""
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Return an empty folder to write to, which takes the place of ``folder`` at the end of the block.

    The old one is moved aside and deleted only then, so that a kill loses neither. After an error inside the block it
    stays as it is.
    """
    recover_folder(folder)
    temporary = folder.with_name(f".{folder.name}.tmp")
    temporary.mkdir(parents=True)
    yield temporary
    _complete_folder(temporary)
    _exchange_folder(temporary, folder)


def recover_folder(folder: Path) -> None:
    """Undo an exchange of folders that a kill cut off, and remove what it left beside."""
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
    """Remove a file, a link or a folder with everything in it; nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force a file or the names of a folder to the disk, where the system can."""
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unlink_shared(path: Path, *, mode: int = _FOR_ALL) -> None:
    """Make a file that will be appended to one of its own, if it is a link to what others have too."""
    if path.is_file() and (path.is_symlink() or path.stat().st_nlink > 1):
        with replaced(path, mode=mode) as temporary:
            shutil.copyfile(path, temporary)


def make_file(path: Path, mode: int = PRIVATE) -> None:
    """Make an empty file of these access rights, less what the umask takes away."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))


def sha256_of(path: Path) -> str:
    """Return hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(folder: Path) -> None:
    """Record the SHA-256 of a folder's files in it, as ``sha256sum`` does; not of documents, which people edit."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files if path.name != CHECKSUMS]
    write_text(folder / CHECKSUMS, "".join(lines))


def damaged_file(folder: Path) -> Path | None:
    """Return the first file of a folder that is missing or is not what :func:`write_checksums` recorded; None for none.

    Every file is read once by a process, and again if its size or times have changed. A folder without records has
    nothing to compare with.
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
    """Return path within the folder and SHA-256 of every file, one after the other."""
    return [part for path in files for part in (path.relative_to(folder).as_posix(), sha256_once(path))]


@lru_cache(maxsize=4096)
def _sha256_of_state(path: Path, *_: int) -> str:
    return sha256_of(path)


class Fingerprints:
    """The SHA-256 of a folder's files; one of unchanged size and times is not read again.

    What is known is kept beside the folder, in a file that is named like its lock, so that whatever passes over locks
    (git, DVC) passes over it. Losing it costs one reading of the files and nothing else.
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
        """Return whether a file is known and has the size and times that it had then."""
        path, known = self._folder / name, self._known.get(name)
        return isinstance(known, list) and path.is_file() and known[:-1] == _size_and_times(path)

    def note(self, name: str, sha256: str) -> None:
        """Keep what is known of a file that was just written."""
        self._known[name] = [*_size_and_times(self._folder / name), sha256]

    def save(self, names: Iterable[str]) -> None:
        """Keep what is known of these files for later processes."""
        known = {name: self._known[name] for name in sorted(names) if name in self._known}
        with replaced(self._place, durable=False) as temporary:
            temporary.write_text(json.dumps(known), encoding="utf-8")


def _size_and_times(path: Path) -> list[Any]:
    # Both times: the second also moves when somebody sets the first back.
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]
