"""Embeddings on disk: resume, reuse, and files that depend on the plan alone."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vr_pipeline.errors import InputError
from vr_pipeline.prompts.embedders import unit_rows
from vr_pipeline.prompts.embedding_store import EmbeddingPlan, EmbeddingStore


class CountingEmbedder:
    """Vectors from a hash of the text; can be killed after a number of texts."""

    def __init__(self, dies_after: int | None = None) -> None:
        self.embedded: list[str] = []
        self.loads = 0
        self._dies_after = dies_after

    def load(self) -> CountingEmbedder:
        self.loads += 1
        return self

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        if self._dies_after is not None and len(self.embedded) >= self._dies_after:
            raise KeyboardInterrupt
        self.embedded.extend(texts)
        rows = [np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype=np.uint8) for text in texts]
        return unit_rows(np.stack(rows).astype(np.float32) - 128)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def plan(texts: Sequence[str], embedder: CountingEmbedder, *, identity: str = "model") -> EmbeddingPlan:
    return EmbeddingPlan(texts, identity, embedder.load, part_size=10)


TEXTS = [f"prompt {number}" for number in range(45)]


def test_lookup_by_text_in_any_order_with_repetitions(tmp_path: Path) -> None:
    embedder = CountingEmbedder()
    store = EmbeddingStore(tmp_path / "e")
    assert store.complete(plan([*TEXTS, TEXTS[3]], embedder)) == 45
    wanted = [TEXTS[30], TEXTS[2], TEXTS[30]]
    np.testing.assert_array_equal(store.load().of(wanted), CountingEmbedder().embed(wanted))
    with pytest.raises(KeyError, match="unknown"):
        store.load().of(["unknown"])


def test_a_killed_run_resumes_without_embedding_again(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "e")
    first = CountingEmbedder(dies_after=20)
    with pytest.raises(KeyboardInterrupt):
        store.complete(plan(TEXTS, first))
    assert not store.is_complete()
    second = CountingEmbedder()
    assert store.complete(plan(TEXTS, second)) == 25
    assert first.embedded + second.embedded == TEXTS
    assert store.is_complete()

    straight = EmbeddingStore(tmp_path / "straight")
    straight.complete(plan(TEXTS, CountingEmbedder()))
    assert files(tmp_path / "e") == files(tmp_path / "straight")


def test_nothing_is_loaded_when_nothing_is_missing(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "e")
    store.complete(plan(TEXTS, CountingEmbedder()))
    before = files(tmp_path / "e")
    again = CountingEmbedder()
    assert store.complete(plan(TEXTS, again)) == 0
    assert again.loads == 0
    assert files(tmp_path / "e") == before


def test_added_and_removed_texts_cost_only_the_difference(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "e")
    store.complete(plan(TEXTS, CountingEmbedder()))
    changed = ["new", *TEXTS[5:20], "newer"]
    embedder = CountingEmbedder()
    assert store.complete(plan(changed, embedder)) == 2
    assert embedder.embedded == ["new", "newer"]
    fresh = EmbeddingStore(tmp_path / "fresh")
    fresh.complete(plan(changed, CountingEmbedder()))
    assert files(tmp_path / "e") == files(tmp_path / "fresh")


def test_another_model_starts_anew(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "e")
    store.complete(plan(TEXTS, CountingEmbedder()))
    assert store.complete(plan(TEXTS, CountingEmbedder(), identity="other")) == 45


def test_a_damaged_part_is_made_again(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "e")
    store.complete(plan(TEXTS, CountingEmbedder()))
    before = files(tmp_path / "e")
    part = tmp_path / "e" / "part-00001.safetensors"
    part.write_bytes(part.read_bytes()[:50])
    assert store.complete(plan(TEXTS, CountingEmbedder())) == 10
    assert files(tmp_path / "e") == before


def test_an_interrupted_exchange_of_folders_is_undone(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "e")
    store.complete(plan(TEXTS, CountingEmbedder()))
    before = files(tmp_path / "e")
    (tmp_path / "e").rename(tmp_path / ".e.old")
    (tmp_path / ".e.tmp").mkdir()
    assert store.complete(plan(TEXTS, CountingEmbedder())) == 0
    assert files(tmp_path / "e") == before
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_an_empty_plan_gives_an_empty_table(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "e")
    assert store.complete(plan([], CountingEmbedder())) == 0
    assert len(store.load()) == 0
    with pytest.raises(KeyError):
        store.load().of(["a"])


SLOW_EMBEDDING = """
import sys, time
import numpy as np
from vr_pipeline.prompts.embedding_store import EmbeddingPlan, EmbeddingStore

class Slow:
    def embed(self, texts):
        time.sleep(0.2)
        return np.eye(len(texts), 10, dtype=np.float32)

EmbeddingStore(sys.argv[1]).complete(EmbeddingPlan([f"prompt {n}" for n in range(45)], "model", Slow, part_size=10))
"""


def test_a_process_that_is_killed_loses_one_part_at_most(tmp_path: Path) -> None:
    folder = tmp_path / "e"
    process = subprocess.Popen([sys.executable, "-c", SLOW_EMBEDDING, str(folder)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (folder / "part-00001.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    finished = len(list(folder.glob("part-*.safetensors")))
    embedder = CountingEmbedder()

    class TenAxes(CountingEmbedder):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            embedder.embedded.extend(texts)
            return np.eye(len(texts), 10, dtype=np.float32)

    assert EmbeddingStore(folder).complete(plan(TEXTS, TenAxes())) == len(embedder.embedded)
    assert embedder.embedded == TEXTS[10 * finished :]


def test_a_flipped_bit_is_noticed_and_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    store = EmbeddingStore(tmp_path / "e")
    store.complete(plan(TEXTS, CountingEmbedder()))
    before = files(tmp_path / "e")
    for path in sorted((tmp_path / "e").iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1]) + whole[-1:])
        if path.suffix == ".safetensors":
            with pytest.raises(InputError, match=rf"{path.name}: the embeddings are missing or damaged"):
                store.load()
        store.complete(plan(TEXTS, CountingEmbedder()))
        assert files(tmp_path / "e") == before
