"""Catalog datasets of vision-language models that are trained on responses."""

from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.datasets.places import FileDataset
from vr_pipeline.datasets.previews import TablePreview, table_preview
from vr_pipeline.datasets.trained_reward import TrainedRewardDataset
from vr_pipeline.errors import InputError
from vr_pipeline.understanding.files import media_names, read_questions, read_response_pairs
from vr_pipeline.understanding.policy import RECORD


class QuestionsDataset(FileDataset[None, "pd.DataFrame"]):
    """Questions about clips or images, or pairs of responses to them, in a user's file; read only.

    Example::

        understanding_questions:
          type: vr_pipeline.datasets.understanding.QuestionsDataset
          filepath: data/01_raw/questions.jsonl
          media: data/01_raw/question_media

    Args:
        filepath: see :func:`vr_pipeline.understanding.files.read_questions`.
        media: the folder of clips and images that the rows name.
        pairs: read pairs of responses; see :func:`vr_pipeline.understanding.files.read_response_pairs`.
    """

    def __init__(
        self, *, filepath: str, media: str, pairs: bool = False, metadata: dict[str, Any] | None = None
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._media, self._pairs = Path(media), pairs

    def load(self) -> pd.DataFrame:
        if not self._media.is_dir():
            raise InputError(
                "there is no such folder of clips and images",
                remedy="put what the questions show there, or set 'media' in the catalog",
                file=self._media,
            )
        names = media_names(self._media, self._path)
        return read_response_pairs(self._path, names) if self._pairs else read_questions(self._path, names)

    def _describe(self) -> dict[str, Any]:
        return {**super()._describe(), "media": str(self._media), "pairs": self._pairs}

    def preview(self) -> TablePreview:
        """Return the first rows, for Kedro-Viz."""
        return table_preview(self.load())


class TrainedVlmDataset(TrainedRewardDataset):
    """A trained vision-language model: an adapter of PEFT or a whole model, loaded as the folder's path."""

    settings_file = RECORD
