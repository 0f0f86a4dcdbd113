"""Clips as bytes in the cells of a table of preferences: their names, and writing them to files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vr_pipeline.identifiers import content_hash
from vr_pipeline.storage.atomic import replaced
from vr_pipeline.storage.tables import Entries
from vr_pipeline.storage.values import as_text, is_missing

FOLDER = "embedded"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_KINDS = (
    (0, b"\x89PNG", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"GIF8", ".gif"),
    (8, b"WEBP", ".webp"),
    (4, b"ftyp", ".mp4"),
    (0, b"\x1aE\xdf\xa3", ".webm"),
)
"""Offset and signature of file types, and their suffix."""


def clip_name(value: Any, name: Any = "") -> Any:
    """Return the name of a clip: its path, or for bytes the given name or their hash.

    Args:
        value: a path, bytes, or a mapping with ``path`` or ``bytes`` as in the library datasets.
        name: its identifier in the table; may be missing.
    """
    content = clip_bytes(value)
    if content is None:
        return value.get("path") if isinstance(value, Mapping) else value
    text = "" if is_missing(name) else as_text(name)
    return text if _PLAIN_NAME.fullmatch(text) else f"{FOLDER}/{content_hash('image', content)}"


def clip_bytes(value: Any) -> bytes | None:
    """Return the bytes of a clip in a cell, or None."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value if isinstance(value, bytes) and value else None


def embedded_clips(entries: Entries, columns: Sequence[tuple[str, str]]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of every clip in a table, each name once.

    Args:
        entries: the table.
        columns: columns that can contain clips, each with the column of their names.
    """
    found = [(entries.find(column), entries.find(name) if name else None) for column, name in columns]
    seen = set()
    for entry in entries.rows:
        for column, named in found:
            value = entry.values.get(column) if column else None
            content = clip_bytes(value)
            if content is None:
                continue
            name = str(clip_name(value, entry.values.get(named) if named else ""))
            if name not in seen:
                seen.add(name)
                yield name, content


def write_embedded(entries: Entries, columns: Sequence[tuple[str, str]], folder: Path) -> int:
    """Write the clips of a table to a folder under :func:`clip_name`; return their number. Existing files are kept."""
    count = 0
    for name, content in embedded_clips(entries, columns):
        ending = next((ending for at, mark, ending in _KINDS if content[at : at + len(mark)] == mark), ".bin")
        target = folder / f"{name}{ending}"
        count += 1
        if target.is_file() and target.stat().st_size == len(content):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced(target, durable=False) as temporary:
            temporary.write_bytes(content)
    return count
