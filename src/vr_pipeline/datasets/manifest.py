"""A folder of many items that is filled piece by piece, survives interruption and never mixes old with new.

While items are made the folder holds ``manifest.partial.jsonl``, to which a line is appended for every item that was
written; when all are there, ``manifest.json`` takes its place. The folder counts as existing only then. On the next
save an item is kept if its record has the identity that the plan asks for, the folder's format is the same and the
file's SHA-256 is the recorded one; everything else in the folder is removed and made again.

Item files are not forced to disk one by one, which would cost more than making small items: after a power failure
the hash tells which of them are whole.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kedro.io import AbstractDataset
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vr_pipeline.datasets.previews import ImagePreview, TablePreview, contact_sheet, spread, table_preview
from vr_pipeline.errors import InputError, storage_explained
from vr_pipeline.identifiers import content_hash
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.atomic import TEMPORARY_PREFIX, Fingerprints, remove, replaced, sha256_of, write_text
from vr_pipeline.storage.formats import ItemFormat, VideoFormat, item_format
from vr_pipeline.work import ItemFailure, Scalar, WorkItem, WorkPlan, current_loop, run_in_process, use_loop

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PARTIAL_MANIFEST = "manifest.partial.jsonl"
_TOLERATED = {".gitkeep", ".gitignore"}
_PLAIN_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")


class ItemRecord(BaseModel):
    """One line of the manifest: an item that was made, or that failed with its reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(min_length=1)
    filename: str = Field(pattern=r"^([a-z0-9][a-z0-9._-]*)?$", description="empty for failed items")
    identity: str
    sha256: str = Field(pattern=r"^([0-9a-f]{64})?$", description="of the file; empty for failed items")
    bytes: int = Field(ge=0)
    status: Literal["ok", "failed"]
    error: str = ""
    stored: dict[str, Scalar] = Field(default_factory=dict, description="what the format says of the file")
    metadata: dict[str, Scalar] = Field(default_factory=dict, description="what the plan says of the item")


class Manifest(BaseModel):
    """The content of manifest.json; the partial manifest has the same in lines, this header first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    format: dict[str, Any]
    items: tuple[ItemRecord, ...] = ()

    @field_validator("format")
    @classmethod
    def _with_defaults(cls, value: dict[str, Any]) -> dict[str, Any]:
        """A format that was written before it had some option was written with that option's default."""
        try:
            return item_format(value).model_dump()
        except ValidationError:
            return value

    def to_text(self) -> str:
        """Deterministic JSON: items sorted by key, no times, no places."""
        items = sorted(self.items, key=lambda record: record.key)
        content = {**self.model_dump(mode="json", exclude={"items"}), "items": [item.model_dump() for item in items]}
        return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def item_filename(key: str, extension: str) -> str:
    """The file name of an item: its key where that is a plain lower-case word, else a cleaned form with a hash.

    Keys may come from users' files: no key can leave the folder, hide, or fall together with another one, also on
    file systems that ignore case.
    """
    plain = _PLAIN_KEY.fullmatch(key) and f"{key}{extension}" not in {MANIFEST, PARTIAL_MANIFEST}
    if plain:
        return f"{key}{extension}"
    cleaned = re.sub(r"[^a-z0-9]+", "-", key.casefold())[:60].strip("-")
    return f"{cleaned or 'item'}.{content_hash('item file', key)}{extension}"


class ItemFolder:
    """A finished folder of items, for reading.

    Args:
        folder: the folder.
        manifest: its manifest.
        stored_as: the format of its items.
    """

    def __init__(self, folder: Path, manifest: Manifest, stored_as: ItemFormat) -> None:
        self.folder = folder
        self._format = stored_as
        self._records = {record.key: record for record in manifest.items}
        self._fingerprints = Fingerprints(folder)

    @property
    def records(self) -> pd.DataFrame:
        """One row an item, sorted by key.

        Columns: key, filename, identity, sha256, bytes, status (ok, failed), error; what the format says of the file
        (for clips num_frames, fps, height, width); the items' metadata.
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
        """Keys of the items that were made, sorted."""
        return sorted(key for key, record in self._records.items() if record.status == "ok")

    def __len__(self) -> int:
        return len(self.keys)

    def __contains__(self, key: object) -> bool:
        return key in self._records and self._records[str(key)].status == "ok"

    def path(self, key: str) -> Path:
        """The file of an item, which is verified: by size and times if its content is known, else by its hash.

        Raises:
            KeyError: the folder has no such item.
            InputError: the item failed, and the reason is named; or its file is missing or damaged.
        """
        record = self._records[key]
        if record.status == "failed":
            raise InputError(
                f"item '{key}' could not be made: {record.error}",
                remedy="skip items whose status is 'failed', or run again to retry them",
                file=self.folder,
            )
        if self._fingerprints.of(record.filename) != record.sha256:
            raise InputError(
                f"'{record.filename}' is missing or damaged: its content is not what was recorded when it was made",
                remedy="run the pipeline that makes the folder again: it makes only what is damaged",
                file=self.folder / record.filename,
            )
        return self.folder / record.filename

    def load(self, key: str) -> Any:
        """The content of an item; raises like :meth:`path`."""
        return self._format.read(self.path(key))

    def damaged(self) -> list[str]:
        """Keys of the items whose file is missing or does not have the recorded SHA-256. Reads every file."""
        files = {key: self.folder / self._records[key].filename for key in self.keys}
        return [
            key for key, file in files.items() if not file.is_file() or sha256_of(file) != self._records[key].sha256
        ]


class ManifestFolderDataset(AbstractDataset[WorkPlan, ItemFolder]):
    """Executes a :class:`~vr_pipeline.work.WorkPlan` on save, loads an :class:`ItemFolder`.

    Example of a catalog entry::

        videos:
          type: vr_pipeline.datasets.manifest.ManifestFolderDataset
          path: data/03_primary/videos
          format: {type: video, fps: 8, enlarge: 4}

    Args:
        path: the folder. It belongs to this dataset alone: whatever else lies in it is removed.
        format: see :mod:`vr_pipeline.storage.formats`.
        metadata: for plugins; not used here.
    """

    takes_up_what_is_there = True
    """Lineage leaves the folder in place before its stage runs again."""

    def __init__(self, *, path: str, format: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        self._folder = Path(path)
        self._format = item_format(format)
        self.metadata = metadata

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._folder), "format": self._format.model_dump()}

    def _exists(self) -> bool:
        return (self._folder / MANIFEST).is_file() and not (self._folder / PARTIAL_MANIFEST).exists()

    @property
    def preview(self) -> Callable[[], Any]:
        """For Kedro-Viz: a contact sheet of clips, or the records of items of other kinds."""
        return self._show_clips if isinstance(self._format, VideoFormat) else self._show_records

    def _show_clips(self) -> ImagePreview:
        folder = self.load()
        return contact_sheet([folder.load(key) for key in spread(folder.keys)])

    def _show_records(self) -> TablePreview:
        return table_preview(self.load().records)

    def load(self) -> ItemFolder:
        """Open the folder.

        Raises:
            InputError: the folder is not complete, its manifest cannot be read, or a file is missing or has another
                size than recorded. Contents are not hashed here, see :meth:`ItemFolder.damaged`.
        """
        if not self._exists():
            raise InputError(
                "the folder of items is not complete", remedy="run the pipeline that makes it", file=self._folder
            )
        manifest = _read_manifest(self._folder / MANIFEST)
        if manifest.format != self._format.model_dump():
            raise InputError(
                f"the items were stored as {manifest.format}, the catalog says {self._format.model_dump()}",
                remedy="run the pipeline that makes them again, or restore the catalog entry",
                file=self._folder,
            )
        for record in manifest.items:
            if record.status == "ok" and _size(self._folder / record.filename) != record.bytes:
                raise InputError(
                    f"'{record.filename}' is missing or not whole",
                    remedy="run the pipeline that makes the folder again: it makes only what is damaged",
                    file=self._folder,
                )
        return ItemFolder(self._folder, manifest, self._format)

    def save(self, data: WorkPlan) -> None:
        """Make what is missing of the plan and complete the folder.

        Raises:
            InputError: keys repeat, another process writes the folder, the folder holds files of somebody else,
                cannot be written or the disk is full, or every item failed.
        """
        names = _planned_filenames(data, self._format.extension)
        with _explained(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder):
            _Filling(self._folder, self._format, data, names).run()


def fill_folder(folder: Path, format: dict[str, Any], plan: WorkPlan) -> ItemFolder:
    """Make what is missing of a plan in a folder, in this process, and open the folder.

    For plans within a node, whose context (a model that is being trained) cannot go to workers.

    Args:
        folder: the folder; it belongs to the plan alone.
        format: see :mod:`vr_pipeline.storage.formats`.
        plan: the items.
    """
    dataset = ManifestFolderDataset(path=str(folder), format=format)
    with use_loop(run_in_process):
        dataset.save(plan)
    return dataset.load()


class _Filling:
    """One execution of a plan into a folder, under the folder's lock."""

    def __init__(self, folder: Path, stored_as: ItemFormat, plan: WorkPlan, names: Mapping[str, str]) -> None:
        self.folder = folder
        self.format = stored_as
        self.plan = plan
        self.names = names
        self.records: dict[str, ItemRecord] = {}
        self.fingerprints = Fingerprints(folder)

    def run(self) -> None:
        known = self._known_records()
        for item in self.plan.items:
            record = known.get(item.key)
            if record is not None and self._is_finished(item, record):
                # The plan may annotate an item anew while the item itself stays valid.
                self.records[item.key] = record.model_copy(update={"metadata": _plain(item)})
        missing = {item.key for item in self.plan.items if item.key not in self.records}
        if missing or self._strangers() or not self._manifest_is_current():
            with _explained(self.folder):
                self._begin()
            self._make(missing)
            self._finish()
        with _explained(self.folder):
            self.fingerprints.save(record.filename for record in self.records.values() if record.status == "ok")

    def _known_records(self) -> dict[str, ItemRecord]:
        """What earlier runs recorded, of whatever configuration; the partial manifest is newer than the final one."""
        final, partial = self.folder / MANIFEST, self.folder / PARTIAL_MANIFEST
        if not final.exists() and not partial.exists():
            # Before its first manifest is whole a run leaves nothing but this under a temporary name.
            names = [entry.name for entry in self._strangers()]
            if foreign := [name for name in names if not name.startswith(TEMPORARY_PREFIX)]:
                raise InputError(
                    f"the folder holds files but no manifest ('{min(foreign)}' for one), and would be cleared",
                    remedy="empty the folder yourself or set another path in the catalog",
                    file=self.folder,
                )
            return {}
        found: dict[str, ItemRecord] = {}
        expected = self.format.model_dump()
        if final.exists():
            try:
                manifest = _read_manifest(final)
            except InputError as error:
                logger.warning("%s Its items are made again.", error)
            else:
                found.update((record.key, record) for record in manifest.items if manifest.format == expected)
        if partial.exists():
            found.update((record.key, record) for record in _read_partial(partial, expected))
        return found

    def _is_finished(self, item: WorkItem, record: ItemRecord) -> bool:
        if record.status != "ok" or record.identity != item.identity or record.filename != self.names[item.key]:
            return False
        if self.fingerprints.of(record.filename) == record.sha256:
            return True
        logger.warning("%s: '%s' is missing or damaged and is made again", self.folder, record.filename)
        return False

    def _strangers(self) -> list[Path]:
        known = {record.filename for record in self.records.values()} | _TOLERATED | {MANIFEST, PARTIAL_MANIFEST}
        return [entry for entry in self.folder.iterdir() if entry.name not in known]

    def _manifest_is_current(self) -> bool:
        final = self.folder / MANIFEST
        if (self.folder / PARTIAL_MANIFEST).exists() or not final.exists():
            return False
        return final.read_text(encoding="utf-8", errors="replace") == self._manifest().to_text()

    def _manifest(self) -> Manifest:
        return Manifest(format=self.format.model_dump(), items=tuple(self.records.values()))

    def _begin(self) -> None:
        """Turn the folder into an unfinished one that holds verified items only."""
        header = json.dumps({"version": 1, "format": self.format.model_dump()}, sort_keys=True)
        lines = [header, *(_line(record) for record in self.records.values())]
        write_text(self.folder / PARTIAL_MANIFEST, "\n".join(lines) + "\n")
        (self.folder / MANIFEST).unlink(missing_ok=True)
        for stranger in self._strangers():
            remove(stranger)

    def _make(self, missing: set[str]) -> None:
        batches = [batch for batch in self.plan.batches() if any(item.key in missing for item in batch)]
        total, description = len(self.plan.items), self.plan.description
        if missing and self.records:
            logger.info("%s: %d of %d are there already", description, len(self.records), total)
        bar = progress_bar(description=description, total=total, initial=len(self.records), disable=not missing)
        with bar, (self.folder / PARTIAL_MANIFEST).open("a", encoding="utf-8", newline="\n") as journal:
            for batch, contents in current_loop()(self.plan, batches):
                if len(contents) != len(batch):
                    raise ValueError(f"make_batch returned {len(contents)} contents for {len(batch)} {description}")
                # Only what is written here is explained as this folder's trouble, not errors of the work itself.
                with _explained(self.folder):
                    for item, content in zip(batch, contents, strict=True):
                        if item.key not in missing:
                            continue
                        record = self._commit(item, content)
                        journal.write(_line(record) + "\n")
                        journal.flush()
                        self.records[item.key] = record
                        bar.update(1)
                    os.fsync(journal.fileno())

    def _commit(self, item: WorkItem, content: Any) -> ItemRecord:
        if isinstance(content, ItemFailure):
            return ItemRecord(
                key=item.key,
                filename="",
                identity=item.identity,
                sha256="",
                bytes=0,
                status="failed",
                error=content.reason,
                metadata=_plain(item),
            )
        target = self.folder / self.names[item.key]
        with replaced(target, durable=False) as temporary:
            stored = self.format.write(temporary, content, item)
            digest, size = sha256_of(temporary), temporary.stat().st_size
        self.fingerprints.note(target.name, digest)
        return ItemRecord(
            key=item.key,
            filename=target.name,
            identity=item.identity,
            sha256=digest,
            bytes=size,
            status="ok",
            stored=stored,
            metadata=_plain(item),
        )

    def _finish(self) -> None:
        failed = [record for record in self.records.values() if record.status == "failed"]
        if failed:
            logger.warning(
                "%s: %d of %d failed and are set aside; the first reason: %s",
                self.plan.description,
                len(failed),
                len(self.records),
                failed[0].error,
            )
        if failed and len(failed) == len(self.records):
            raise InputError(
                f"all {len(failed)} {self.plan.description} failed; the first reason: {failed[0].error}",
                remedy="remove the cause and run the same command again",
                file=self.folder,
            )
        with _explained(self.folder):
            write_text(self.folder / MANIFEST, self._manifest().to_text())
            (self.folder / PARTIAL_MANIFEST).unlink()


def _planned_filenames(plan: WorkPlan, extension: str) -> dict[str, str]:
    names: dict[str, str] = {}
    for position, item in enumerate(plan.items):
        if item.key in names:
            raise InputError(
                f"key '{item.key}' of {plan.description} repeats (item {position + 1})",
                remedy="give every item a key of its own",
            )
        names[item.key] = item_filename(item.key, extension)
    return names


def _plain(item: WorkItem) -> dict[str, Scalar]:
    """An item's metadata with numpy scalars turned into Python ones, which JSON can hold."""
    reserved = ItemRecord.model_fields.keys() & item.metadata.keys()
    if reserved:
        raise ValueError(f"metadata of item '{item.key}' uses reserved names: {sorted(reserved)}")
    return {name: getattr(value, "item", lambda same=value: same)() for name, value in item.metadata.items()}


def _line(record: ItemRecord) -> str:
    return json.dumps(record.model_dump(), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"the manifest cannot be read ({first['msg']})",
            remedy="run the pipeline that makes the folder again",
            file=path,
            field=place or None,
        ) from error


def _read_partial(path: Path, expected_format: dict[str, Any]) -> Iterator[ItemRecord]:
    """Records of an unfinished run. Lines that are cut off or damaged count as not written."""
    with path.open("rb") as file:
        try:
            header = Manifest.model_validate_json(file.readline())
        except ValidationError:
            logger.warning("%s has no readable header; its items are made again", path)
            return
        if header.format != expected_format:
            return
        for line in file:
            with contextlib.suppress(ValidationError):
                yield ItemRecord.model_validate_json(line)


def _size(path: Path) -> int:
    """Size of a regular file in bytes, -1 if there is none."""
    return path.stat().st_size if path.is_file() else -1


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which lies beside it: a process that dies gives it back."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    with _explained(folder):
        try:
            lock.acquire()
        except Timeout as error:
            raise InputError(
                "another run is writing this folder",
                remedy="wait for it to finish or stop it, then run the same command again",
                file=folder,
            ) from error
    try:
        yield
    finally:
        lock.release()


def _explained(folder: Path) -> contextlib.AbstractContextManager[None]:
    return storage_explained(folder, "finished items are kept")
