"""Catalog entries for long work on prompts: they receive a plan and carry out what is missing on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from vr_pipeline.prompts.answer_store import AnswerPlan, Answers, AnswerStore
from vr_pipeline.prompts.embedding_store import EmbeddingPlan, Embeddings, EmbeddingStore


class PromptEmbeddingsDataset(AbstractDataset[EmbeddingPlan, Embeddings]):
    """Embeddings of prompts: saving a plan embeds what the folder lacks, loading gives vectors by text.

    Example::

        prompt_embeddings:
          type: vr_pipeline.datasets.prompt_stores.PromptEmbeddingsDataset
          path: data/04_feature/prompt_embeddings
    """

    takes_up_what_is_there = True

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(path)
        self._store = EmbeddingStore(self._path)
        self.metadata = metadata

    def save(self, data: EmbeddingPlan) -> None:
        self._store.complete(data)

    def load(self) -> Embeddings:
        return self._store.load()

    def _exists(self) -> bool:
        return self._store.is_complete()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}


class TextModelAnswersDataset(AbstractDataset[AnswerPlan, Answers]):
    """Answers of a text model: saving a plan asks what the file lacks, loading gives answers by text.

    Example::

        prompt_reviews:
          type: vr_pipeline.datasets.prompt_stores.TextModelAnswersDataset
          filepath: data/04_feature/prompt_reviews.jsonl
    """

    takes_up_what_is_there = True

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self._store = AnswerStore(self._filepath)
        self.metadata = metadata

    def save(self, data: AnswerPlan) -> None:
        self._store.complete(data)

    def load(self) -> Answers:
        return self._store.load()

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
