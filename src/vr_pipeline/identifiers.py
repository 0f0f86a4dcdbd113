"""Stable identifiers and seeds, derived from content and never from order; and when two of a kind are the same.

Prompts are the same in any case, white space and Unicode form (:func:`normalise_prompt`); annotators likewise
(:func:`annotator_key`). Names of clips and pairs are the same up to white space around them and the canonical Unicode
form, in which file systems differ; their case counts (:func:`same_name`). Paths are names whose ``./``, ``a/../`` and
backslashes do not count (:func:`same_path`). Pairs without a name are the same if their prompt and their two clips
are, in either order (:func:`pair_id`).
"""

import ast
import hashlib
import importlib
import inspect
import posixpath
import unicodedata
from collections.abc import Callable, Iterable


def content_hash(*parts: str | bytes | int, length: int = 16) -> str:
    """Return the hexadecimal SHA-256 of the parts, separated unambiguously, cut to ``length`` digits.

    Args:
        parts: strings are hashed as UTF-8, integers as their decimal digits.
        length: number of hexadecimal digits kept; 16 digits are 64 bits.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:length]


def code_hash(*modules: str) -> str:
    """Hash of what modules say to the interpreter: another comment or layout is the same code.

    Args:
        modules: full names, in any order.
    """
    sources = (inspect.getsource(importlib.import_module(name)) for name in sorted(set(modules)))
    return content_hash("code", *(ast.dump(ast.parse(source)) for source in sources))


def normalise_prompt(prompt: str) -> str:
    """Return the form of a prompt under which duplicates are recognised: NFKC, case folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", prompt).casefold().split())


def annotator_key(name: str) -> str:
    """Return the form of an annotator's name under which the same person is recognised."""
    return normalise_prompt(name)


def same_name(name: str) -> str:
    """Return the form of a clip's or pair's name under which it is compared."""
    return unicodedata.normalize("NFC", name.strip())


def same_path(path: str) -> str:
    """Return the form of a path under which it is compared; nothing is looked up."""
    return posixpath.normpath(same_name(path).replace("\\", "/"))


def first_spellings(names: Iterable[str], key: Callable[[str], str]) -> list[str]:
    """Return each name in the spelling of the first one with its key."""
    first: dict[str, str] = {}
    return [first.setdefault(key(name), name) for name in names]


def prompt_id(prompt: str, image: str = "") -> str:
    """Return the identifier of a prompt: hash of its normalised text, which survives re-ordering and re-scraping.

    Args:
        prompt: the text.
        image: hash of the first frame's file, which is then part of the identifier; empty for prompts of text alone.
    """
    return content_hash("prompt", normalise_prompt(prompt), *([image] if image else []))


IMAGE = "image"
"""Column of tables with the first frame of a prompt's clips, as ``<SHA-256 of the file>:<path>``; absent for text."""


def image_content(image: str) -> str:
    """Return the hash of a first frame that a table names."""
    return image.partition(":")[0]


def video_id(prompt_identifier: str, sample_index: int, producer: str) -> str:
    """Return the identifier of one clip: the prompt, the sample's number and the identity of what made it."""
    return content_hash("video", prompt_identifier, sample_index, producer)


def sample_seed(base_seed: int, prompt_identifier: str, sample_index: int) -> int:
    """Seed of one sample, a non-negative integer below 2**63, independent of batch, order and shard."""
    return int(content_hash("seed", base_seed, prompt_identifier, sample_index), 16) >> 1


def pair_id(prompt_identifier: str, first_video: str, second_video: str) -> str:
    """Return the identifier of an unordered pair of clips under one prompt."""
    low, high = sorted((first_video, second_video))
    return content_hash("pair", prompt_identifier, low, high)
