"""Catalog dataset of a judge's folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from vr_pipeline.storage.atomic import replaced_folder, write_checksums

if TYPE_CHECKING:
    from vr_pipeline.judges.training.task import TrainedJudge


class JudgeFolderDataset(AbstractDataset["TrainedJudge", str]):
    """A trained judge: saved as a folder (weights, tokenizer, judge.json), loaded as the folder's path.

    The folder is written beside its place and then moved there, so that a half-written model is never found. A file
    MODEL_CARD.md in the folder is kept.
    """

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(path)
        self.metadata = metadata

    def load(self) -> str:
        return str(self._path)

    def save(self, data: TrainedJudge) -> None:
        with replaced_folder(self._path) as folder:
            data.save(folder)
            write_checksums(folder)
            card = self._path / "MODEL_CARD.md"
            if card.exists():
                shutil.copy2(card, folder / card.name)

    def _exists(self) -> bool:
        return (self._path / "config.json").exists()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}
