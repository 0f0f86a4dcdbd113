"""Catalog dataset of people's annotations for training a judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

if TYPE_CHECKING:
    import pandas as pd


class JudgeAnnotationsDataset(AbstractDataset[None, "pd.DataFrame"]):
    """Loads labels, or grades as in VisionRewardDB, as a table of labels; read only.

    Args:
        filepath: csv, tsv, json, jsonl or parquet; see
            :func:`vr_pipeline.judges.training.annotations.read_annotations`.
        checklist: the checklist (YAML) whose grade maps make answers of grades.
        metadata: for plugins; not used here.
    """

    def __init__(self, *, filepath: str, checklist: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath, self._checklist = Path(filepath), Path(checklist)
        self.metadata = metadata

    def load(self) -> pd.DataFrame:
        from vr_pipeline.checklist import load_checklist
        from vr_pipeline.judges.training.annotations import read_annotations

        return read_annotations(self._filepath, load_checklist(self._checklist))

    def save(self, data: None) -> None:
        raise NotImplementedError("annotations are only read")

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "checklist": str(self._checklist)}
