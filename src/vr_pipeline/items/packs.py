"""Packs: files with many small items, one after the other.

While items are made, each is appended to one file, ``items.partial`` with the format's extension. When all are
finished, a hash of its key assigns each to a pack, which has its items in the order of their keys. A pack is named by
its content, so a new pack never replaces one to which records still refer. A record has the place of an item in its
pack and the SHA-256 of its bytes.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.formats import PackedFormat
from vr_pipeline.items.manifest import ItemRecord, size_of
from vr_pipeline.storage.atomic import Fingerprints, replaced, unlink_shared

ITEMS_IN_A_PACK = 1024
"""Number of items above which there are 16 packs; above 16 times as many there are 256, and so on."""

_DIGITS = 32


class OpenPack:
    """The file to which items are appended; a context.

    Args:
        folder: of the file.
        stored_as: the format of its items.
        records: of finished items; anything after them in the file was left by a kill.
    """

    def __init__(self, folder: Path, stored_as: PackedFormat, records: Iterable[ItemRecord]) -> None:
        self._path = folder / f"items.partial{stored_as.extension}"
        own = (record for record in records if record.filename == self._path.name)
        self._end = max(((record.start or 0) + record.bytes for record in own), default=0)
        unlink_shared(self._path)

    def __enter__(self) -> "OpenPack":
        self._file: FileIO = self._path.open("ab", buffering=0)
        if self._file.tell() > self._end:
            self._file.truncate(self._end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, item: bytes) -> dict[str, Any]:
        """Append an item, and return its place for its record."""
        view = memoryview(item)
        while view:
            view = view[self._file.write(view) :]
        place = {"filename": self._path.name, "start": self._end, "bytes": len(item), "sha256": _sha256(item)}
        self._end += len(item)
        return place


def read_items(folder: Path, records: Sequence[ItemRecord]) -> list[bytes | None]:
    """Return the bytes of items in packs; None for one that is missing or damaged."""
    found: list[bytes | None] = [None] * len(records)
    of_pack: dict[str, list[int]] = defaultdict(list)
    for at, record in enumerate(records):
        of_pack[record.filename].append(at)
    for name, places in of_pack.items():
        if not (folder / name).is_file():
            continue
        with (folder / name).open("rb", buffering=0) as file:
            for at in sorted(places, key=lambda at: records[at].start or 0):
                file.seek(records[at].start or 0)
                item = file.read(records[at].bytes)
                if _sha256(item) == records[at].sha256:
                    found[at] = item
    return found


def is_whole(folder: Path, record: ItemRecord, fingerprints: Fingerprints) -> bool:
    """Return whether an item is as recorded: by its pack's name and content, else by its own bytes."""
    return _is_pack(record.filename, fingerprints) or read_items(folder, [record]) != [None]


def are_packs(folder: Path, records: Iterable[ItemRecord], fingerprints: Fingerprints) -> bool:
    """Return whether each file of a complete folder is a pack whose content and size are as recorded."""
    return all(
        _is_pack(name, fingerprints) and size_of(folder / name) == size for name, size in sizes_of(records).items()
    )


def lay_out(
    folder: Path, stored_as: PackedFormat, records: Iterable[ItemRecord], fingerprints: Fingerprints
) -> dict[str, ItemRecord]:
    """Write the packs of a complete folder and return the records of their items by key.

    The same items give the same packs, in whatever order they were made. Correct packs are not written again.

    Raises:
        OSError: a pack cannot be written, or an item can no longer be read.
    """
    all_records = sorted(records, key=lambda record: record.key)
    digits = 0
    while len(all_records) > ITEMS_IN_A_PACK * 16**digits:
        digits += 1
    packs: dict[str, list[ItemRecord]] = defaultdict(list)
    for record in all_records:
        packs[content_hash("pack", record.key)[:digits]].append(record)
    laid_out: dict[str, ItemRecord] = {}
    for prefix, members in sorted(packs.items()):
        beginning = "-".join(["items", *([prefix] if prefix else [])])
        if not _is_laid_out(folder, beginning, members, fingerprints):
            members = _write_pack(folder, beginning, stored_as.extension, members, fingerprints)
        laid_out |= {record.key: record for record in members}
    return laid_out


def sizes_of(records: Iterable[ItemRecord]) -> Mapping[str, int]:
    """Return the size of each file of a complete folder by its records, in bytes."""
    sizes: dict[str, int] = defaultdict(int)
    for record in records:
        if record.status == "ok":
            sizes[record.filename] += record.bytes
    return sizes


def _is_laid_out(folder: Path, beginning: str, members: Sequence[ItemRecord], fingerprints: Fingerprints) -> bool:
    end = 0
    for record in members:
        if record.filename != members[0].filename or record.start != end:
            return False
        end += record.bytes
    name = members[0].filename
    return name.startswith(f"{beginning}-") and _is_pack(name, fingerprints) and size_of(folder / name) == end


def _is_pack(name: str, fingerprints: Fingerprints) -> bool:
    digest = name.partition(".")[0].rpartition("-")[2]
    return len(digest) == _DIGITS and fingerprints.of(name).startswith(digest)


def _write_pack(
    folder: Path, beginning: str, extension: str, members: Sequence[ItemRecord], fingerprints: Fingerprints
) -> list[ItemRecord]:
    items = read_items(folder, members)
    content = b"".join(item for item in items if item is not None)
    if any(item is None for item in items):
        raise OSError(f"an item of '{members[0].filename}' changed while the folder was completed")
    digest = _sha256(content)
    name = f"{beginning}-{digest[:_DIGITS]}{extension}"
    with replaced(folder / name) as temporary:
        temporary.write_bytes(content)
    fingerprints.note(name, digest)
    placed, start = [], 0
    for record in members:
        placed.append(record.model_copy(update={"filename": name, "start": start}))
        start += record.bytes
    return placed


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
