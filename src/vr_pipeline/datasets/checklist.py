"""Catalog dataset of a checklist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from vr_pipeline.checklist import Checklist, load_checklist
from vr_pipeline.datasets.previews import TablePreview, table_preview


class ChecklistDataset(AbstractDataset[Checklist, Checklist]):
    """A checklist file in the format of :func:`vr_pipeline.checklist.load_checklist`; it can only be read.

    Example::

        checklist:
          type: vr_pipeline.datasets.checklist.ChecklistDataset
          filepath: conf/base/checklist.yml
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Checklist:
        return load_checklist(self._filepath)

    def preview(self) -> TablePreview:
        """For Kedro-Viz: the questions with their places."""
        import pandas as pd

        columns = ["dimension", "sub_dimension", "question_id", "text"]
        questions = self.load().questions
        rows = [[getattr(question, column) for column in columns] for question in questions]
        return table_preview(pd.DataFrame(rows, columns=columns), len(questions))

    def save(self, data: Checklist) -> None:
        raise NotImplementedError("A checklist is written by people: edit its file.")

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
