"""The record of a folder of items: its files, their identities and their hashes."""

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.items.formats import item_format
from vr_pipeline.work import Scalar

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
PARTIAL_MANIFEST = "manifest.partial.jsonl"
_PLAIN_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")

FILES_IN_A_FOLDER = 10_000
"""Number of items above which files are spread over 256 folders."""


class ItemRecord(BaseModel):
    """One line of the manifest: a successful item, or a failed one with its reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str = Field(min_length=1)
    filename: str = Field(
        pattern=r"^(([0-9a-f]{2}/)?[a-z0-9][a-z0-9._-]*)?$", description="within the folder; empty for failed items"
    )
    start: int | None = Field(None, ge=0, description="first byte of the item in its pack")
    identity: str
    sha256: str = Field(pattern=r"^([0-9a-f]{64})?$", description="of the item; empty for failed items")
    bytes: int = Field(ge=0)
    status: Literal["ok", "failed"]
    error: str = ""
    stored: dict[str, Scalar] = Field(default_factory=dict, description="metadata of the format")
    metadata: dict[str, Scalar] = Field(default_factory=dict, description="metadata of the plan")

    def to_json(self) -> dict[str, Any]:
        """Return plain values; only items in packs have a start."""
        values = {**self.__dict__}
        if self.start is None:
            del values["start"]
        return values


class Manifest(BaseModel):
    """The content of manifest.json; the partial manifest has the same as lines, after this header."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    format: dict[str, Any]
    items: tuple[ItemRecord, ...] = ()

    @field_validator("format")
    @classmethod
    def _with_defaults(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Fill in defaults: a format from before an option existed was written with its default."""
        try:
            return item_format(value).model_dump()
        except ValidationError:
            return value

    def to_text(self) -> str:
        """Return deterministic JSON: items sorted by key, no times, no paths."""
        content = {**self.model_dump(mode="json", exclude={"items"}), "items": []}
        text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        items = ",\n  ".join(_indented(item.to_json(), 2) for item in sorted(self.items, key=lambda item: item.key))
        # The list is formatted here, because json.dumps takes minutes for hundreds of thousands of items.
        before, after = text.split('\n "items": []')
        return f'{before}\n "items": [\n  {items}\n ]{after}' if items else text


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def _indented(values: Mapping[str, Any], depth: int) -> str:
    """Return a mapping of mappings and scalars as ``json.dumps`` writes it with an indent of 1 at this depth."""
    if not values:
        return "{}"
    space = "\n" + " " * (depth + 1)
    lines = (
        f"{space}{_encode(name)}: {_indented(value, depth + 1) if isinstance(value, dict) else _encode(value)}"
        for name, value in sorted(values.items())
    )
    return "{" + ",".join(lines) + "\n" + " " * depth + "}"


def item_filename(key: str, extension: str, *, spread: bool = False) -> str:
    """Return the file name of an item: its key if that is a plain lower-case word, else a cleaned form with a hash.

    ``spread`` puts the file into one of 256 folders, named by two digits of a hash of the key. Keys may come from
    users' files: no key gives a path outside the folder, a hidden file, or the name of another key, even on file
    systems that ignore case.
    """
    place = f"{content_hash('folder of an item', key)[:2]}/" if spread else ""
    plain = _PLAIN_KEY.fullmatch(key) and f"{key}{extension}" not in {MANIFEST, PARTIAL_MANIFEST}
    if plain:
        return f"{place}{key}{extension}"
    cleaned = re.sub(r"[^a-z0-9]+", "-", key.casefold())[:60].strip("-")
    return f"{place}{cleaned or 'item'}.{content_hash('item file', key)}{extension}"


def item_places(key: str, extension: str) -> tuple[str, str]:
    """Return the two possible names of an item's file: with few items, and with many."""
    return item_filename(key, extension), item_filename(key, extension, spread=True)


def record_line(record: ItemRecord) -> str:
    return json.dumps(record.to_json(), sort_keys=True, ensure_ascii=False, allow_nan=False)


def read_manifest(path: Path) -> Manifest:
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


def read_partial(path: Path, expected_format: dict[str, Any]) -> Iterator[ItemRecord]:
    """Yield records of an unfinished run, without incomplete or damaged lines."""
    with path.open("rb") as file:
        try:
            header = Manifest.model_validate_json(file.readline())
        except ValidationError:
            logger.warning("%s has no readable header; its items are made again", path)
            return
        if header.format != expected_format:
            logger.warning("%s: its items were stored as %s and are made again", path, header.format)
            return
        for line in file:
            with contextlib.suppress(ValidationError):
                yield ItemRecord.model_validate_json(line)


def size_of(path: Path) -> int:
    """Return the size of a regular file in bytes; -1 if there is none."""
    return path.stat().st_size if path.is_file() else -1
