"""Embeddings on disk by text and model, written in parts so that a killed run loses at most one part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vr_pipeline.errors import InputError
from vr_pipeline.identifiers import content_hash
from vr_pipeline.prompts.embedders import Embedder
from vr_pipeline.runtime.progress import progress_bar
from vr_pipeline.storage.atomic import (
    TEMPORARY_PREFIX,
    recover_folder,
    replaced,
    replaced_folder,
    sha256_of,
    write_text,
)

COMPLETE_FILE: Final = "complete.json"


def embedding_keys(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Return 64-bit content hashes of texts."""
    return np.array([int(content_hash("embedding", text), 16) for text in texts], dtype=np.uint64)


@dataclass(frozen=True)
class EmbeddingPlan:
    """Texts to embed, and the model.

    Args:
        texts: repetitions are embedded once.
        identity: of the model; embeddings of another model are not reused.
        load: loads the model; called only if an embedding is missing.
        part_size: number of texts per part.
    """

    texts: Sequence[str]
    identity: str
    load: Callable[[], Embedder]
    part_size: int = 8192


class Embeddings:
    """Embeddings by text."""

    def __init__(self, keys: npt.NDArray[np.uint64], vectors: npt.NDArray[np.float32]) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._order, self._vectors = keys[order], order, vectors

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return unit vectors [texts, axes].

        Raises:
            KeyError: a text is not embedded.
        """
        wanted = embedding_keys(texts)
        place = np.searchsorted(self._keys, wanted)
        known = (place < len(self._keys)) & (
            self._keys[np.minimum(place, max(len(self._keys) - 1, 0))] == wanted if len(self._keys) else False
        )
        if not np.all(known):
            raise KeyError(f"no embedding of {texts[int(np.argmin(known))]!r}")
        return self._vectors[self._order[place]]


class EmbeddingStore:
    """A folder of parts, each a safetensors file with ``keys`` (uint64) and ``vectors`` (float32)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def complete(self, plan: EmbeddingPlan) -> int:
        """Embed missing texts; afterwards the store has exactly the plan's texts in order.

        The final files depend only on the plan, not on interruptions or earlier content.

        Returns:
            number of newly embedded texts.
        """
        recover_folder(self.folder)
        texts = list(dict.fromkeys(plan.texts))
        keys = embedding_keys(texts)
        wanted = {"identity": plan.identity, "parts": self._parts_of(len(texts), plan.part_size)}
        damaged = self._damaged()
        if damaged or not wanted.items() <= self._read_json(self.folder / COMPLETE_FILE).items():
            (self.folder / COMPLETE_FILE).unlink(missing_ok=True)
        for path in damaged:
            path.unlink(missing_ok=True)
        self._prepare(plan.identity)
        stored_keys, stored = self._read_parts()
        missing = np.flatnonzero(~np.isin(keys, stored_keys))
        if len(missing):
            embedder = plan.load()
            number = self._next_number()
            parts = range(0, len(missing), plan.part_size)
            with progress_bar(
                description="embed prompts", total=len(texts), initial=len(texts) - len(missing), unit="prompt"
            ) as bar:
                for start in parts:
                    part = missing[start : start + plan.part_size]
                    vectors = embedder.embed([texts[index] for index in part.tolist()])
                    self._write_part(self.folder, number, keys[part], vectors)
                    number += 1
                    bar.update(len(part))
            stored_keys, stored = self._read_parts()
        if len(stored_keys) != len(keys) or not np.array_equal(stored_keys, keys):
            order = np.argsort(stored_keys, kind="stable")
            self._rewrite(plan, keys, stored[order[np.searchsorted(stored_keys[order], keys)]])
        hashes = {part.name: sha256_of(part) for part in sorted(self.folder.glob("part-*.safetensors"))}
        self._write_json(self.folder / COMPLETE_FILE, wanted | {"sha256": hashes})
        return len(missing)

    def load(self) -> Embeddings:
        """Return all embeddings of a completed store.

        Raises:
            InputError: a part is missing or damaged.
        """
        for part in self._damaged():
            raise InputError(
                "the embeddings are missing or damaged: their content differs from the record",
                file=part,
                remedy="run the pipeline prompt_filtering again, which makes only damaged parts",
            )
        return Embeddings(*self._read_parts())

    def is_complete(self) -> bool:
        """Return whether the last plan is complete."""
        return (self.folder / COMPLETE_FILE).is_file()

    def _prepare(self, identity: str) -> None:
        """Make an empty folder for this model if there is none."""
        marker = self.folder / "model.json"
        if self._read_json(marker).get("identity") == identity:
            for stray in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
                stray.unlink()
            return
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        self._write_json(marker, {"identity": identity})

    def _rewrite(self, plan: EmbeddingPlan, keys: npt.NDArray[np.uint64], vectors: npt.NDArray[np.float32]) -> None:
        with replaced_folder(self.folder) as fresh:
            self._write_json(fresh / "model.json", {"identity": plan.identity})
            for number, start in enumerate(range(0, len(keys), plan.part_size)):
                part = slice(start, start + plan.part_size)
                self._write_part(fresh, number, keys[part], np.ascontiguousarray(vectors[part]))

    def _read_parts(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        keys, vectors = [np.empty(0, dtype=np.uint64)], []
        for path in sorted(self.folder.glob("part-*.safetensors")):
            try:
                part = load_file(path)
            except SafetensorError:
                # Parts are renamed when complete, so this one was damaged later and is made again.
                path.unlink()
                continue
            keys.append(part["keys"])
            vectors.append(part["vectors"])
        return np.concatenate(keys), np.concatenate(vectors) if vectors else np.empty((0, 0), dtype=np.float32)

    def _next_number(self) -> int:
        numbers = [int(path.stem.split("-")[1]) for path in self.folder.glob("part-*.safetensors")]
        return max(numbers, default=-1) + 1

    @staticmethod
    def _parts_of(count: int, part_size: int) -> list[int]:
        return [min(part_size, count - start) for start in range(0, count, part_size)]

    def _damaged(self) -> list[Path]:
        """Return parts of a complete store that differ from the record."""
        hashes = self._read_json(self.folder / COMPLETE_FILE).get("sha256", {})
        # Only names, so that no file outside the folder is read or removed.
        parts = {self.folder / Path(name).name: digest for name, digest in hashes.items()}
        return [part for part, digest in parts.items() if not part.is_file() or sha256_of(part) != digest]

    @staticmethod
    def _read_json(path: Path) -> dict[str, Any]:
        """Return the content of a small file of this store; empty if missing or damaged."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @staticmethod
    def _write_part(folder: Path, number: int, keys: npt.NDArray[np.uint64], vectors: npt.NDArray[np.float32]) -> None:
        from safetensors.numpy import save_file

        with replaced(folder / f"part-{number:05d}.safetensors") as temporary:
            save_file({"keys": keys, "vectors": vectors}, temporary)

    @staticmethod
    def _write_json(path: Path, content: object) -> None:
        write_text(path, json.dumps(content))
