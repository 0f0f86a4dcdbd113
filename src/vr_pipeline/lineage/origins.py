"""The origin of each result by content, and whether results that a node combines belong together.

The record of a dataset's content has the node that made it, the contents of its inputs, and the settings. Records are
found by content, so a restored result (by DVC, or by hand) finds its record again; content without a record (supplied
files, results of another machine) is accepted. Two results belong together if, in all their direct and indirect inputs,
every dataset has one content, the current one, and every setting one value.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vr_pipeline.storage.atomic import write_text

_MANIFEST = "manifest.json"
_RECORDS_OF_ONE_CONTENT = 4
_CONTENTS_OF_ONE_PLACE = 32


class Digests:
    """Hashes of files and folders; a file is read again only if its size or time has changed.

    Args:
        known: path -> size, time of change and hash, from earlier runs.
    """

    def __init__(self, known: Mapping[str, list[Any]] | None = None) -> None:
        self.known = dict(known or {})

    def of(self, path: Path) -> str | None:
        """Return the hash of a file, or of a folder that the project made; None for anything else.

        A folder of items is identified by its manifest, which has the hash of each item. Folders without manifest or
        configuration (clips supplied by users) are not hashed: the index of clips has their hashes.
        """
        if path.is_file():
            return self._file(path)
        if (path / _MANIFEST).is_file():
            return self._file(path / _MANIFEST)
        if not path.is_dir() or not any(path.glob("*.json")):
            return None
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        return _hash("\n".join(f"{file.relative_to(path).as_posix()} {self._file(file)}" for file in files))

    def _file(self, path: Path) -> str:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        entry = self.known.get(str(path))
        if entry is None or entry[:2] != stamp:
            with path.open("rb") as stream:
                # Comments in YAML do not count.
                text = _meaning(stream.read()) if path.suffix in (".yml", ".yaml") else None
                stream.seek(0)
                found = _hash(text) if text else hashlib.file_digest(stream, "sha256").hexdigest()[:32]
            entry = [*stamp, found]
            self.known[str(path)] = entry
        return str(entry[2])


@dataclass(frozen=True)
class Origin:
    """The origin of one content of a dataset.

    Args:
        inputs: path -> hash of the node's inputs.
        settings: dotted name -> value of the node's parameters.
    """

    dataset: str
    node: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


class Mismatch(NamedTuple):
    """A result that does not belong to the others, with the reason."""

    origin: Origin
    reason: str


class Origins:
    """The records of a project."""

    def __init__(self, file: Path, project: Path) -> None:
        self.file, self.project = file, project
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            self._records: dict[str, dict[str, list[dict[str, Any]]]] = content["records"]
            self.digests = Digests(content["known"])
        except (OSError, ValueError, KeyError, TypeError):
            # Damaged or of another version: nothing is known, and all results are accepted.
            self._records, self.digests = {}, Digests()

    def place(self, path: Path) -> str:
        """Return a path as it is recorded."""
        absolute = Path(os.path.abspath(self.project / path))
        return absolute.relative_to(self.project).as_posix() if absolute.is_relative_to(self.project) else str(absolute)

    def digest(self, place: str) -> str | None:
        """Return the hash of the current content of a place."""
        return self.digests.of(self.project / place)

    def add(self, place: str, origin: Origin) -> None:
        """Record the origin of the current content of a place."""
        digest = self.digest(place)
        if digest is None:
            return
        contents = self._records.setdefault(place, {})
        record = json.loads(json.dumps(vars(origin) | {"inputs": dict(origin.inputs)}, default=str))
        kept = [one for one in contents.pop(digest, []) if one != record]
        contents[digest] = [record, *kept][:_RECORDS_OF_ONE_CONTENT]
        self._records[place] = dict(list(contents.items())[-_CONTENTS_OF_ONE_PLACE:])

    def save(self) -> None:
        """Write the records."""
        known = {path: entry for path, entry in self.digests.known.items() if Path(path).exists()}
        write_text(self.file, json.dumps({"records": self._records, "known": known}, sort_keys=True))

    def mismatches(
        self, places: Iterable[str], settings: Mapping[str, Any], remade: Iterable[str] = ()
    ) -> list[Mismatch]:
        """Return results behind ``places`` that do not belong to the others, or to ``settings``.

        Args:
            remade: places that will be made again before they are read; they are not checked.
        """
        return _Search(self, dict(settings), set(remade)).run(places)

    def of(self, place: str, digest: str) -> list[Origin]:
        """Return the recorded origins of a content of a place, the latest first."""
        return [Origin(**record) for record in self._records.get(place, {}).get(digest, [])]


class _Search:
    """One search through the direct and indirect inputs of some places."""

    def __init__(self, origins: Origins, settings: dict[str, Any], remade: set[str]) -> None:
        self.origins, self.remade = origins, remade
        self.settings = {name: (value, "this run") for name, value in settings.items()}
        self.contents: dict[str, str] = {}
        self.found: dict[tuple[str, str], Mismatch] = {}
        self.now = cache(origins.digest)

    def run(self, places: Iterable[str]) -> list[Mismatch]:
        for place in sorted(places):
            digest = self.now(place)
            if digest is not None and place not in self.remade:
                self._visit(place, digest)
        return list(self.found.values())

    def _visit(self, place: str, digest: str) -> None:
        if self.contents.get(place) == digest:
            return
        records = self.origins.of(place, digest)
        origin = min(records, key=lambda one: len(list(self._troubles(one))), default=None)
        self.contents.setdefault(place, digest)
        if origin is None:
            return
        for reason in self._troubles(origin):
            self.found[origin.dataset, reason] = Mismatch(origin, reason)
        for name, value in origin.settings.items():
            self.settings.setdefault(name, (value, origin.dataset))
        for source, content in origin.inputs.items():
            if source not in self.remade and self.now(source) in (None, content):
                self._visit(source, content)

    def _troubles(self, origin: Origin) -> Iterator[str]:
        for source, content in origin.inputs.items():
            if source in self.remade:
                continue
            now = self.now(source)
            if now is not None and now != content:
                yield f"{origin.dataset} was made from another {source} than the current one"
            elif now is None and self.contents.get(source, content) != content:
                yield f"{origin.dataset} was made from another {source} than other results of this run"
        for name, value in origin.settings.items():
            seen = self.settings.get(name, (value, ""))
            if seen[0] != value:
                yield f"{origin.dataset} was made with {name} = {_short(value)}, {seen[1]} with {_short(seen[0])}"


def _meaning(content: bytes) -> str | None:
    """Return the content of a YAML file without comments and layout; None for other text."""
    import yaml

    try:
        return json.dumps(yaml.safe_load(content), default=str)
    except (yaml.YAMLError, ValueError):
        return None


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
