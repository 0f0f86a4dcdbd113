"""Catalog dataset of people's annotations for training a judge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vr_pipeline.checklist import load_checklist
from vr_pipeline.datasets.places import FileDataset
from vr_pipeline.judges.training.annotations import read_annotations


class JudgeAnnotationsDataset(FileDataset[None, "pd.DataFrame"]):
    """Labels, or grades (VisionRewardDB, ``kedro annotate --checklist``), as a table of labels; read only.

    Args:
        filepath: csv, tsv, json, jsonl or parquet; see
            :func:`vr_pipeline.judges.training.annotations.read_annotations`.
        checklist: the checklist (YAML) whose grade maps turn grades into answers.
        without: annotators of a journal whose grades are ignored.
    """

    def __init__(
        self,
        *,
        filepath: str,
        checklist: str,
        without: Sequence[str] = (),
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(filepath=filepath, metadata=metadata)
        self._checklist = Path(checklist)
        self._without = tuple(without)

    def load(self) -> pd.DataFrame:
        return read_annotations(self._path, load_checklist(self._checklist), without=self._without)
