"""Catalog dataset of a judge's folder."""

import shutil

from vr_pipeline.datasets.places import FolderDataset
from vr_pipeline.judges.training.task import TrainedJudge
from vr_pipeline.storage.atomic import replaced_folder, write_checksums


class JudgeFolderDataset(FolderDataset["TrainedJudge", str]):
    """A trained judge: saved as a folder (weights, tokenizer, judge.json), loaded as the folder's path.

    The folder is written beside its place and renamed. A file MODEL_CARD.md in it is kept.
    """

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
