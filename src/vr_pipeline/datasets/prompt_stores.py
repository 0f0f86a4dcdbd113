"""Catalog datasets of long work on prompts: saving a plan carries out what is missing on disk."""

from vr_pipeline.datasets.places import FileDataset, FolderDataset
from vr_pipeline.prompts.answer_store import AnswerPlan, Answers, AnswerStore
from vr_pipeline.prompts.embedding_store import EmbeddingPlan, Embeddings, EmbeddingStore


class PromptEmbeddingsDataset(FolderDataset[EmbeddingPlan, Embeddings]):
    """Embeddings of prompts: saving a plan embeds those that the folder lacks, loading gives vectors by text.

    Example::

        prompt_embeddings:
          type: vr_pipeline.datasets.prompt_stores.PromptEmbeddingsDataset
          path: data/04_feature/prompt_embeddings
    """

    takes_up_what_is_there = True

    def save(self, data: EmbeddingPlan) -> None:
        EmbeddingStore(self._path).complete(data)

    def load(self) -> Embeddings:
        return EmbeddingStore(self._path).load()

    def _exists(self) -> bool:
        return EmbeddingStore(self._path).is_complete()


class TextModelAnswersDataset(FileDataset[AnswerPlan, Answers]):
    """Answers of a text model: saving a plan asks the questions that the file lacks, loading gives answers by text.

    Example::

        prompt_reviews:
          type: vr_pipeline.datasets.prompt_stores.TextModelAnswersDataset
          filepath: data/04_feature/prompt_reviews.jsonl
    """

    takes_up_what_is_there = True

    def save(self, data: AnswerPlan) -> None:
        AnswerStore(self._path).complete(data)

    def load(self) -> Answers:
        return AnswerStore(self._path).load()
