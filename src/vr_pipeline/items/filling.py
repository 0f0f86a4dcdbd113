"""A folder of many items that is filled item by item, survives interruption and never mixes old with new.

While items are made, the folder has ``manifest.partial.jsonl``, to which a line is appended for every written item;
when all are finished, ``manifest.json`` replaces it. Only then does the folder count as existing. On the next save an
item is kept if its record has the identity of the plan, the folder's format is the same and the item's SHA-256 is the
recorded one; everything else in the folder is removed and made again.

By its format, an item is a file, in one of 256 folders if there are very many, or part of a pack
(:mod:`vr_pipeline.items.packs`). Items are not forced to disk one by one, which would take longer than making small
ones: after a power failure, the hashes show which of them are complete.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any

from vr_pipeline.engine.groups import current_group
from vr_pipeline.errors import InputError, storage_explained
from vr_pipeline.items.folder import ItemFolder, open_folder
from vr_pipeline.items.formats import FileFormat, ItemFormat, PackedFormat, item_format
from vr_pipeline.items.manifest import (
    FILES_IN_A_FOLDER,
    MANIFEST,
    PARTIAL_MANIFEST,
    ItemRecord,
    Manifest,
    item_filename,
    item_places,
    read_manifest,
    read_partial,
    record_line,
)
from vr_pipeline.items.packs import OpenPack, are_packs, is_whole, lay_out
from vr_pipeline.items.stored import StoredItem, Storing
from vr_pipeline.items.together import follow, release, shared_loop
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.atomic import (
    TEMPORARY_PREFIX,
    Fingerprints,
    remove,
    replaced,
    sha256_of,
    unlink_shared,
    write_text,
)
from vr_pipeline.work import ItemFailure, Scalar, WorkItem, WorkLoop, WorkPlan, current_loop, run_in_process, use_loop

logger = logging.getLogger(__name__)

_TOLERATED = {".gitkeep", ".gitignore"}
_SECONDS_BETWEEN_SYNCS = 1.0


def fill(folder: Path, stored_as: ItemFormat, plan: WorkPlan) -> None:
    """Make the missing items of a plan and complete the folder, which belongs to the plan alone.

    Raises:
        InputError: a key appears twice, another process writes the folder, the folder has other files or cannot be
            written, the disk is full, or every item failed.
    """
    names = _planned_filenames(plan, stored_as)
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        _Filling(folder, stored_as, plan, names).run()


def fill_folder(folder: Path, format: dict[str, Any], plan: WorkPlan) -> ItemFolder:
    """Make the missing items of a plan in a folder, and open the folder.

    For plans within a node, whose context (a model in training) cannot be sent to workers. Processes that train
    together call it together: they share the work, and the main one writes. All of them need access to the folder.

    Args:
        folder: the folder; it belongs to the plan alone.
        format: see :mod:`vr_pipeline.items.formats`.
        plan: the items.
    """
    stored_as, group = item_format(format), current_group()
    if group.size == 1:
        with use_loop(run_in_process):
            fill(folder, stored_as, plan)
    elif group.main:
        with use_loop(shared_loop(group)):
            fill(folder, stored_as, plan)
        release(group)
    else:
        follow(group, plan)
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
        self.manifest: Manifest | None = None
        """The folder's complete manifest, if it has one."""
        self.journal: list[ItemRecord] = []
        """The records of the partial manifest."""

    def run(self) -> None:
        known = self._known_records()
        for item in self.plan.items:
            record = known.get(item.key)
            if record is not None and self._is_finished(item, record):
                # The plan may change the metadata of an item that is still valid.
                filename = self.names.get(item.key, record.filename)
                self.records[item.key] = record.model_copy(update={"metadata": _plain(item), "filename": filename})
        missing = {item.key for item in self.plan.items if item.key not in self.records}
        if missing or self._strangers() or not self._manifest_is_current():
            with _explained(self.folder):
                self._begin()
            self._make(missing)
            self._finish()
        with _explained(self.folder):
            made = {record.filename for record in self.records.values() if record.status == "ok"}
            self.fingerprints.save([*made, MANIFEST])

    def _known_records(self) -> dict[str, ItemRecord]:
        """Return the records of earlier runs with any configuration; the partial manifest is the newer one."""
        final, partial = self.folder / MANIFEST, self.folder / PARTIAL_MANIFEST
        if not final.exists() and not partial.exists():
            # Before its first manifest is complete, a killed run leaves only files with temporary names.
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
                self._compare(manifest.format, len(manifest.items))
                if manifest.format == expected:
                    self.manifest = manifest
                    found.update((record.key, record) for record in manifest.items)
        if partial.exists():
            self.journal = list(read_partial(partial, expected))
            found.update((record.key, record) for record in self.journal)
        return found

    def _compare(self, stored: dict[str, Any], number: int) -> None:
        if stored != self.format.model_dump() and number:
            logger.warning(
                "%s: its %d items were stored as %s and are made again as %s",
                *(self.folder, number, stored, self.format.model_dump()),
            )

    def _is_finished(self, item: WorkItem, record: ItemRecord) -> bool:
        if record.status != "ok" or record.identity != item.identity:
            return False
        if isinstance(self.format, PackedFormat):
            whole = record.start is not None and is_whole(self.folder, record, self.fingerprints)
        else:
            if record.filename not in item_places(item.key, self.format.extension):
                return False
            whole = self._moved(record, self.names[item.key])
        if not whole:
            logger.warning("%s: '%s' is missing or damaged and is made again", self.folder, record.key)
        return whole

    def _moved(self, record: ItemRecord, name: str) -> bool:
        """Return whether a file is complete, and move it if the number of items has changed its place."""
        for place in item_places(record.key, self.format.extension):
            if self.fingerprints.of(place) == record.sha256:
                if place != name:
                    with _explained(self.folder):
                        (self.folder / name).parent.mkdir(exist_ok=True)
                        os.replace(self.folder / place, self.folder / name)
                    self.fingerprints.note(name, record.sha256)
                return True
        return False

    def _strangers(self) -> list[Path]:
        known = {record.filename for record in self.records.values()} | _TOLERATED | {MANIFEST, PARTIAL_MANIFEST}
        folders = {name.partition("/")[0] for name in known if "/" in name}
        inside = (entry for name in sorted(folders) for entry in (self.folder / name).iterdir())
        entries = chain((entry for entry in self.folder.iterdir() if entry.name not in folders), inside)
        return [entry for entry in entries if entry.relative_to(self.folder).as_posix() not in known]

    def _manifest_is_current(self) -> bool:
        final = self.folder / MANIFEST
        if self.manifest is None or (self.folder / PARTIAL_MANIFEST).exists():
            return False
        if {record.key: record for record in self.manifest.items} != self.records:
            return False
        if isinstance(self.format, PackedFormat) and not are_packs(self.folder, self.manifest.items, self.fingerprints):
            return False
        # Making its text takes long with many items.
        return self.fingerprints.is_as_noted(MANIFEST) or sha256_of(final) == _sha256(self._manifest().to_text())

    def _manifest(self) -> Manifest:
        return Manifest(format=self.format.model_dump(), items=tuple(self.records.values()))

    def _begin(self) -> None:
        """Turn the folder into an unfinished one with verified items only."""
        partial = self.folder / PARTIAL_MANIFEST
        if self._partial_is_current():
            unlink_shared(partial)
        else:
            header = json.dumps({"version": 1, "format": self.format.model_dump()}, sort_keys=True)
            lines = [header, *(record_line(record) for record in self.records.values())]
            write_text(partial, "\n".join(lines) + "\n")
        (self.folder / MANIFEST).unlink(missing_ok=True)
        self._remove_strangers()

    def _partial_is_current(self) -> bool:
        """Return whether the partial manifest has a complete line for each finished item and no other."""
        if len(self.journal) != len(self.records) or {record.key: record for record in self.journal} != self.records:
            return False
        partial = self.folder / PARTIAL_MANIFEST
        text = partial.read_bytes() if partial.exists() else b""
        return text.endswith(b"\n") and text.count(b"\n") == 1 + len(self.journal)

    def _remove_strangers(self) -> None:
        for stranger in self._strangers():
            remove(stranger)

    def _make(self, missing: set[str]) -> None:
        batches = [batch for batch in self.plan.batches() if any(item.key in missing for item in batch)]
        total, description = len(self.plan.items), self.plan.description
        if missing and self.records:
            logger.info("%s: %d of %d are there already", description, len(self.records), total)
        bar = progress_bar(description=description, total=total, initial=len(self.records), disable=not missing)
        with contextlib.ExitStack() as stack:
            stack.enter_context(bar)
            with _explained(self.folder):
                partial = (self.folder / PARTIAL_MANIFEST).open("a", encoding="utf-8", newline="\n")
                journal, synced = stack.enter_context(partial), monotonic()
                if isinstance(self.format, PackedFormat) and missing:
                    self.pack = stack.enter_context(OpenPack(self.folder, self.format, self.records.values()))
            loop = current_loop()
            for batch, contents in loop(self._plan_for(loop), batches):
                if len(contents) != len(batch):
                    raise ValueError(f"make_batch returned {len(contents)} contents for {len(batch)} {description}")
                # Only errors of writing are explained as those of this folder, not errors of the work itself.
                with _explained(self.folder):
                    for item, content in zip(batch, contents, strict=True):
                        if item.key not in missing:
                            if isinstance(content, StoredItem):
                                content.temporary.unlink(missing_ok=True)
                            continue
                        record = self._commit(item, content)
                        journal.write(record_line(record) + "\n")
                        journal.flush()
                        self.records[item.key] = record
                        bar.update(1)
                    if monotonic() - synced > _SECONDS_BETWEEN_SYNCS:
                        os.fsync(journal.fileno())
                        synced = monotonic()
            os.fsync(journal.fileno())

    def _plan_for(self, loop: WorkLoop) -> WorkPlan:
        """Return the plan for a loop; workers write the files themselves, so that clips do not pass through a store."""
        if loop is run_in_process or not isinstance(self.format, FileFormat):
            return self.plan
        return replace(self.plan, make_batch=Storing(self.plan.make_batch, self.folder.absolute(), self.format))

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
        stored: dict[str, Scalar] = {}
        place: dict[str, Any]
        if isinstance(self.format, PackedFormat):
            place = self.pack.add(self.format.encode(content))
        else:
            assert isinstance(self.format, FileFormat)
            name = self.names[item.key]
            with replaced(self.folder / name, durable=False) as temporary:
                if isinstance(content, StoredItem):
                    os.replace(content.temporary, temporary)
                    stored, digest = content.stored, content.sha256
                else:
                    stored, digest = self.format.write(temporary, content, item), sha256_of(temporary)
                place = {"filename": name, "sha256": digest, "bytes": temporary.stat().st_size}
            self.fingerprints.note(name, place["sha256"])
        return ItemRecord(
            key=item.key, identity=item.identity, status="ok", stored=stored, metadata=_plain(item), **place
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
            if isinstance(self.format, PackedFormat):
                made = [record for record in self.records.values() if record.status == "ok"]
                self.records |= lay_out(self.folder, self.format, made, self.fingerprints)
            text = self._manifest().to_text()
            write_text(self.folder / MANIFEST, text)
            self.fingerprints.note(MANIFEST, _sha256(text))
            (self.folder / PARTIAL_MANIFEST).unlink()
            self._remove_strangers()


def _planned_filenames(plan: WorkPlan, stored_as: ItemFormat) -> dict[str, str]:
    """Return the file of each item by its key; empty if items are in packs."""
    seen: set[str] = set()
    for position, item in enumerate(plan.items):
        if item.key in seen:
            raise InputError(
                f"key '{item.key}' of {plan.description} repeats (item {position + 1})",
                remedy="give every item a key of its own",
            )
        seen.add(item.key)
    if isinstance(stored_as, PackedFormat):
        return {}
    spread = len(plan.items) > FILES_IN_A_FOLDER
    return {item.key: item_filename(item.key, stored_as.extension, spread=spread) for item in plan.items}


def _plain(item: WorkItem) -> dict[str, Scalar]:
    """Return an item's metadata with Python scalars instead of those of numpy, for JSON."""
    reserved = ItemRecord.model_fields.keys() & item.metadata.keys()
    if reserved:
        raise ValueError(f"metadata of item '{item.key}' uses reserved names: {sorted(reserved)}")
    return {name: getattr(value, "item", lambda same=value: same)() for name, value in item.metadata.items()}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, a file beside it; the lock of a process that dies is released."""
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


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _explained(folder: Path) -> contextlib.AbstractContextManager[None]:
    return storage_explained(folder, "finished items are kept")
