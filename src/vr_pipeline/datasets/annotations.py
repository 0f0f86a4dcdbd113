"""Catalog dataset of people's annotations for training a judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vr_pipeline.datasets.places import FileDataset

if TYPE_CHECKING:
    import pandas as pd


class JudgeAnnotationsDataset(FileDataset[None, "pd.DataFrame"]):
    """Loads labels, or grades as in VisionRewardDB, as a table of labels; read only.

    Args:
        filepath: csv, tsv, json, jsonl or parquet; see
            :func:`vr_pipeline.judges.training.annotations.read_annotations`.
        checklist: the checklist (YAML) whose grade maps make answers of grades.
    """

    def __init__(self, *, filepath: str, checklist: str, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._checklist = Path(checklist)

    def load(self) -> pd.DataFrame:
        from vr_pipeline.checklist import load_checklist
        from vr_pipeline.judges.training.annotations import read_annotations

        return read_annotations(self._path, load_checklist(self._checklist))
