"""Embeddings on disk, keyed by text and model, written part by part so that a killed run loses at most one part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from vr_pipeline.identifiers import content_hash
from vr_pipeline.progress import progress_bar
from vr_pipeline.prompts.embedders import Embedder
from vr_pipeline.storage import TEMPORARY_PREFIX, recover_folder, replaced, replaced_folder, write_text

COMPLETE_FILE: Final = "complete.json"


def embedding_keys(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """64-bit content hashes of texts."""
    return np.array([int(content_hash("embedding", text), 16) for text in texts], dtype=np.uint64)


@dataclass(frozen=True)
class EmbeddingPlan:
    """Texts to embed and how.

    Args:
        texts: any repetitions are embedded once.
        identity: of the model; embeddings of another one are not reused.
        load: loads the model; called only if something is missing.
        part_size: texts a part.
    """

    texts: Sequence[str]
    identity: str
    load: Callable[[], Embedder]
    part_size: int = 8192


class Embeddings:
    """Embeddings that can be looked up by text."""

    def __init__(self, keys: npt.NDArray[np.uint64], vectors: npt.NDArray[np.float32]) -> None:
        order = np.argsort(keys, kind="stable")
        self._keys, self._order, self._vectors = keys[order], order, vectors

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def axes(self) -> int:
        """Length of each vector."""
        return int(self._vectors.shape[1])

    def of(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors [texts, axes].

        Raises:
            KeyError: if a text was never embedded.
        """
        wanted = embedding_keys(texts)
        place = np.searchsorted(self._keys, wanted)
        known = (place < len(self._keys)) & (
            self._keys[np.minimum(place, max(len(self._keys) - 1, 0))] == wanted if len(self._keys) else False
        )
        if not np.all(known):
            raise KeyError(f"there is no embedding of {texts[int(np.argmin(known))]!r}")
        return self._vectors[self._order[place]]


class EmbeddingStore:
    """A folder of parts, each a safetensors file with ``keys`` (uint64) and ``vectors`` (float32)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def complete(self, plan: EmbeddingPlan) -> int:
        """Embed what is missing; afterwards the store holds exactly the plan's texts, in the plan's order.

        The final files depend on the plan alone, not on how often the work was interrupted or what was there before.

        Returns:
            how many texts had to be embedded.
        """
        recover_folder(self.folder)
        texts = list(dict.fromkeys(plan.texts))
        keys = embedding_keys(texts)
        if self._read_complete() != {"identity": plan.identity, "parts": self._parts_of(len(texts), plan.part_size)}:
            (self.folder / COMPLETE_FILE).unlink(missing_ok=True)
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
        self._write_json(
            self.folder / COMPLETE_FILE,
            {"identity": plan.identity, "parts": self._parts_of(len(texts), plan.part_size)},
        )
        return len(missing)

    def load(self) -> Embeddings:
        """All embeddings of a completed store."""
        return Embeddings(*self._read_parts())

    def is_complete(self) -> bool:
        """Whether the last plan was carried out to its end."""
        return (self.folder / COMPLETE_FILE).is_file()

    def _prepare(self, identity: str) -> None:
        """An empty folder for this model, unless there is one already."""
        marker = self.folder / "model.json"
        if marker.is_file() and json.loads(marker.read_text(encoding="utf-8"))["identity"] == identity:
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
                # Parts are renamed into place when whole; one that is not was damaged later: make it again.
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

    def _read_complete(self) -> object:
        path = self.folder / COMPLETE_FILE
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    @staticmethod
    def _write_part(folder: Path, number: int, keys: npt.NDArray[np.uint64], vectors: npt.NDArray[np.float32]) -> None:
        from safetensors.numpy import save_file

        with replaced(folder / f"part-{number:05d}.safetensors") as temporary:
            save_file({"keys": keys, "vectors": vectors}, temporary)

    @staticmethod
    def _write_json(path: Path, content: object) -> None:
        write_text(path, json.dumps(content))
