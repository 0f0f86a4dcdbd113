"""Catalog dataset of a VideoReward's folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from vr_pipeline.datasets.places import FolderDataset
from vr_pipeline.storage.atomic import replaced_folder

if TYPE_CHECKING:
    from vr_pipeline.rewards.videoreward.training.task import TrainedReward


class TrainedRewardDataset(FolderDataset["TrainedReward", str]):
    """A trained VideoReward: saved as a folder that ``vr.load_reward_model`` reads, loaded as the folder's path.

    The folder is written beside its place and then moved there, so that a half-written model is never found. Documents
    in it (``*.md``) are kept.

    Example::

        trained_reward:
          type: vr_pipeline.datasets.trained_reward.TrainedRewardDataset
          path: data/06_models/videoreward
    """

    def load(self) -> str:
        return str(self._path)

    def save(self, data: TrainedReward) -> None:
        with replaced_folder(self._path) as folder:
            data.save(folder)
            for document in sorted(self._path.glob("*.md")):
                shutil.copy2(document, folder / document.name)

    def _exists(self) -> bool:
        return (self._path / "reward.json").exists()
