"""Catalog dataset of a checklist."""

from vr_pipeline.checklist import Checklist, load_checklist
from vr_pipeline.datasets.places import FileDataset
from vr_pipeline.datasets.previews import TablePreview, table_preview


class ChecklistDataset(FileDataset[None, Checklist]):
    """A checklist file in the format of :func:`vr_pipeline.checklist.load_checklist`; read only.

    Example::

        checklist:
          type: vr_pipeline.datasets.checklist.ChecklistDataset
          filepath: conf/base/checklist.yml
    """

    def load(self) -> Checklist:
        return load_checklist(self._path)

    def preview(self) -> TablePreview:
        """Return the questions with their positions, for Kedro-Viz."""
        import pandas as pd

        columns = ["dimension", "sub_dimension", "question_id", "text"]
        questions = self.load().questions
        rows = [[getattr(question, column) for column in columns] for question in questions]
        return table_preview(pd.DataFrame(rows, columns=columns), len(questions))
