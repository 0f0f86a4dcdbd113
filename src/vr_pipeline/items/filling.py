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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vr_pipeline.errors import InputError, storage_explained
from vr_pipeline.items.folder import ItemFolder, open_folder
from vr_pipeline.items.formats import ItemFormat, item_format
from vr_pipeline.items.manifest import (
    MANIFEST,
    PARTIAL_MANIFEST,
    ItemRecord,
    Manifest,
    item_filename,
    read_manifest,
    read_partial,
    record_line,
)
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.atomic import TEMPORARY_PREFIX, Fingerprints, remove, replaced, sha256_of, write_text
from vr_pipeline.work import ItemFailure, Scalar, WorkItem, WorkPlan, current_loop, run_in_process, use_loop

logger = logging.getLogger(__name__)

_TOLERATED = {".gitkeep", ".gitignore"}


def fill(folder: Path, stored_as: ItemFormat, plan: WorkPlan) -> None:
    """Make what is missing of a plan and complete the folder, which belongs to the plan alone.

    Raises:
        InputError: keys repeat, another process writes the folder, the folder holds files of somebody else,
            cannot be written or the disk is full, or every item failed.
    """
    names = _planned_filenames(plan, stored_as.extension)
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _Filling(folder, stored_as, plan, names).run()


def fill_folder(folder: Path, format: dict[str, Any], plan: WorkPlan) -> ItemFolder:
    """Make what is missing of a plan in a folder, in this process, and open the folder.

    For plans within a node, whose context (a model that is being trained) cannot go to workers.

    Args:
        folder: the folder; it belongs to the plan alone.
        format: see :mod:`vr_pipeline.items.formats`.
        plan: the items.
    """
    stored_as = item_format(format)
    with use_loop(run_in_process):
        fill(folder, stored_as, plan)
    return open_folder(folder, stored_as)


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
        """Return what earlier runs recorded, whatever the configuration; the partial manifest is the newer one."""
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
                manifest = read_manifest(final)
            except InputError as error:
                logger.warning("%s Its items are made again.", error)
            else:
                found.update((record.key, record) for record in manifest.items if manifest.format == expected)
        if partial.exists():
            found.update((record.key, record) for record in read_partial(partial, expected))
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
        lines = [header, *(record_line(record) for record in self.records.values())]
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
                        journal.write(record_line(record) + "\n")
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
    """Return an item's metadata with numpy scalars turned into Python ones, which JSON can hold."""
    reserved = ItemRecord.model_fields.keys() & item.metadata.keys()
    if reserved:
        raise ValueError(f"metadata of item '{item.key}' uses reserved names: {sorted(reserved)}")
    return {name: getattr(value, "item", lambda same=value: same)() for name, value in item.metadata.items()}


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
