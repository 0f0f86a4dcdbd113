"""A finished folder of items, for reading."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.errors import InputError
from vr_pipeline.items.formats import FileFormat, ItemFormat, PackedFormat
from vr_pipeline.items.manifest import MANIFEST, PARTIAL_MANIFEST, ItemRecord, Manifest, read_manifest, size_of
from vr_pipeline.items.packs import read_items, sizes_of
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.atomic import Fingerprints, sha256_of

if TYPE_CHECKING:
    import pandas as pd


class ItemFolder:
    """A finished folder of items, for reading.

    Args:
        folder: the folder.
        manifest: its manifest.
        stored_as: the format of its items.
    """

    def __init__(self, folder: Path, manifest: Manifest, stored_as: ItemFormat) -> None:
        self.folder = folder
        self.manifest = manifest
        self._format = stored_as
        self._records = {record.key: record for record in manifest.items}
        self._fingerprints = Fingerprints(folder)

    @property
    def records(self) -> pd.DataFrame:
        """One row per item, sorted by key.

        Columns: key, filename, identity, sha256, bytes, status (ok, failed), error; metadata of the format (for clips
        num_frames, fps, height, width); metadata of the items.
        """
        import pandas as pd

        columns = ["key", "filename", "identity", "sha256", "bytes", "status", "error"]
        rows = [
            {**record.model_dump(exclude={"stored", "metadata"}), **record.stored, **record.metadata}
            for _, record in sorted(self._records.items())
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)

    @property
    def keys(self) -> list[str]:
        """Keys of successful items, sorted."""
        return sorted(key for key, record in self._records.items() if record.status == "ok")

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self._records and self._records[str(key)].status == "ok"

    def path(self, key: str) -> Path:
        """Return the file of an item, verified by size and times if its content is known, else by its hash.

        Raises:
            KeyError: the folder has no such item.
            TypeError: the folder's items share files.
            InputError: the item failed, with the reason; or its file is missing or damaged.
        """
        if isinstance(self._format, PackedFormat):
            raise TypeError(f"items of {self.folder} have no file of their own")
        record = self._record(key)
        if self._fingerprints.of(record.filename) != record.sha256:
            raise self._damage(record)
        return self.folder / record.filename

    def load(self, key: str) -> Any:
        """Return the content of an item; raises like :meth:`path`."""
        if isinstance(self._format, PackedFormat):
            return self.load_joined([key])
        assert isinstance(self._format, FileFormat)
        return self._format.read(self.path(key))

    def load_joined(self, keys: Sequence[str]) -> Any:
        """Return the content of one or more tables in packs as one table, each verified by its hash.

        Raises:
            KeyError: the folder has no such item.
            InputError: an item failed, with the reason; or it is missing or damaged.
        """
        assert isinstance(self._format, PackedFormat)
        records = [self._record(key) for key in keys]
        items = read_items(self.folder, records)
        for record, item in zip(records, items, strict=True):
            if item is None:
                raise self._damage(record)
        return self._format.decode([item for item in items if item is not None])

    def damaged(self) -> list[str]:
        """Return the keys of items that are missing or do not have the recorded SHA-256. Reads every file."""
        records = [self._records[key] for key in self.keys]
        shown = progress_bar(records, description=f"verify {self.folder.name}")
        if isinstance(self._format, PackedFormat):
            return [record.key for record in shown if read_items(self.folder, [record]) == [None]]
        return [record.key for record in shown if not self._is_whole(record)]

    def _is_whole(self, record: ItemRecord) -> bool:
        file = self.folder / record.filename
        return file.is_file() and sha256_of(file) == record.sha256

    def _record(self, key: str) -> ItemRecord:
        record = self._records[key]
        if record.status == "failed":
            raise InputError(
                f"item '{key}' could not be made: {record.error}",
                remedy="skip items whose status is 'failed', or run again to retry them",
                file=self.folder,
            )
        return record

    def _damage(self, record: ItemRecord) -> InputError:
        what = f"'{record.filename}'" if record.start is None else f"item '{record.key}' in '{record.filename}'"
        return InputError(
            f"{what} is missing or damaged: its content is not what was recorded when it was made",
            remedy="run the pipeline that makes the folder again: it makes only what is damaged",
            file=self.folder / record.filename,
        )


def is_complete(folder: Path) -> bool:
    """Return whether a folder is complete."""
    return (folder / MANIFEST).is_file() and not (folder / PARTIAL_MANIFEST).exists()


def open_folder(folder: Path, stored_as: ItemFormat) -> ItemFolder:
    """Open a complete folder.

    Raises:
        InputError: the folder is not complete, its manifest cannot be read, or a file is missing or does not have the
            recorded size. Contents are not hashed here; see :meth:`ItemFolder.damaged`.
    """
    opened = _open_unchecked(folder, stored_as)
    for name, size in sizes_of(opened.manifest.items).items():
        if size_of(folder / name) != size:
            raise InputError(
                f"'{name}' is missing or not whole",
                remedy="run the pipeline that makes the folder again: it makes only what is damaged",
                file=folder,
            )
    return opened


def verify_folder(folder: Path, stored_as: ItemFormat) -> tuple[int, dict[str, str]]:
    """Read every item of a complete folder, and compare it with its recorded SHA-256.

    If an item is damaged, recorded sizes and times are discarded, so that the next run also reads everything and makes
    the item again.

    Returns:
        number of items, and the file of each missing or damaged one by key.

    Raises:
        InputError: the folder is not complete or has another format, or its manifest cannot be read.
    """
    opened = _open_unchecked(folder, stored_as)
    damaged = set(opened.damaged())
    if damaged:
        Fingerprints(folder).save([])
    return len(opened), {item.key: item.filename for item in opened.manifest.items if item.key in damaged}


def _open_unchecked(folder: Path, stored_as: ItemFormat) -> ItemFolder:
    if not is_complete(folder):
        raise InputError("the folder of items is not complete", remedy="run the pipeline that creates it", file=folder)
    manifest = read_manifest(folder / MANIFEST)
    if manifest.format != stored_as.model_dump():
        raise InputError(
            f"the items were stored as {manifest.format}, the catalog says {stored_as.model_dump()}",
            remedy="run the pipeline that makes them again, or restore the catalog entry",
            file=folder,
        )
    return ItemFolder(folder, manifest, stored_as)
