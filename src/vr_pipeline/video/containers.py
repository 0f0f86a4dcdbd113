"""What a file is by its first bytes, and whether it ends before its own container does."""

import codecs
from typing import BinaryIO

_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"moof", b"styp", b"sidx", b"mfra", b"meta", b"uuid")
"""What mp4 and mov files are made of, each behind its size."""

_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Kinds of a container like mp4 that hold photographs, in tiles that video decoders take for frames."""

_STARTS = (b"\x1aE\xdf\xa3", b"RIFF", b"GIF8", b"\x00\x00\x01", b"FLV", b"\x47", b"0&\xb2u")


def is_container(head: bytes) -> bool:
    """Return whether a file begins as videos do: mp4, mov, Matroska, WebM, AVI, GIF, MPEG, FLV, WMV."""
    return head[4:8] in _BOXES or head.startswith(_STARTS) or head[4:5] == b"\x47"


def is_heic(head: bytes) -> bool:
    """Return whether a file begins as photographs of telephones do."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIC


def looks_like_text(head: bytes) -> bool:
    """Return whether the beginning of a file is text in UTF-8."""
    try:
        # The last character may be cut in two.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\r\n\t" for character in text)


def missing_end(file: BinaryIO, head: bytes, size: int) -> int | None:
    """Return the least bytes that a file should have; None where it has them, or does not state its length.

    Players and decoders take what is there, and half a clip would be judged as if it were all.
    """
    stated = _stated_boxes(file, size) if head[4:8] in _BOXES else _stated_size(head)
    return stated if stated is not None and stated > size else None


def _stated_boxes(file: BinaryIO, size: int) -> int | None:
    """Return where the last of the boxes that make up an mp4 or mov file ends; None where one is left open.

    What lies behind them (tags, trailers of cameras, what an upload has left) is no box: it has no length to keep.
    """
    at = 0
    while at + 8 <= size:
        file.seek(at)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4], "big"), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:
            return None
        if at + length > size:
            return at + length if kind in _BOXES else None
        at += length
    return at


def _stated_size(head: bytes) -> int | None:
    """Return the bytes that AVI (first RIFF chunk), Matroska and WebM (header and segment) say they have."""
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"\x1aE\xdf\xa3":
        return None
    header, start = _ebml_size(head, 4)
    if header is None or head[start + header : start + header + 4] != b"\x18S\x80g":
        return None
    segment, start = _ebml_size(head, start + header + 4)
    return None if segment is None else start + segment


def _ebml_size(head: bytes, at: int) -> tuple[int | None, int]:
    """Return a size in EBML's variable length, None if left open as in live streams, and where its content starts."""
    if at >= len(head) or head[at] == 0:
        return None, at
    length = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (None if value == (1 << 7 * length) - 1 else value), at + length
