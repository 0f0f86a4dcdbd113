"""Files of items written by the worker that made them, so that their contents need not travel between processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vr_pipeline.errors import storage_explained
from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.formats import FileFormat
from vr_pipeline.storage.atomic import TEMPORARY_PREFIX, sha256_of
from vr_pipeline.work import ItemFailure, Scalar, WorkItem


@dataclass(frozen=True)
class StoredItem:
    """An item's file under a temporary name, until its folder takes it.

    Attributes:
        temporary: the file.
        sha256, bytes: of its content.
        stored: what the format says about it.
    """

    temporary: Path
    sha256: str
    bytes: int
    stored: dict[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Storing:
    """A plan's ``make_batch`` that writes what it made, and returns a :class:`StoredItem` for each content.

    Attributes:
        make_batch: of the plan.
        folder: of the items; every worker must have it under this path.
        format: of the items.
    """

    make_batch: Callable[[Any, Sequence[WorkItem]], Sequence[Any]]
    folder: Path
    format: FileFormat

    def __call__(self, context: Any, batch: Sequence[WorkItem]) -> Sequence[Any]:
        contents = self.make_batch(context, batch)
        if len(contents) != len(batch):
            # The folder reports it.
            return contents
        with storage_explained(self.folder, "finished items are kept"):
            return [self._stored(item, content) for item, content in zip(batch, contents, strict=True)]

    def _stored(self, item: WorkItem, content: Any) -> StoredItem | ItemFailure:
        if isinstance(content, ItemFailure):
            return content
        # Named by the key, so that a batch that is made again after its worker died replaces the file.
        temporary = self.folder / f"{TEMPORARY_PREFIX}{content_hash('stored', item.key)}{self.format.extension}"
        stored = self.format.write(temporary, content, item)
        return StoredItem(temporary, sha256_of(temporary), temporary.stat().st_size, stored)
