"""Catalog dataset of a trained reward's folder."""

import shutil
from pathlib import Path
from typing import ClassVar, Protocol

from vr_pipeline.datasets.places import FolderDataset
from vr_pipeline.storage.atomic import replaced_folder


class Trained(Protocol):
    """A result of training: a VideoReward, a UnifiedReward or a latent reward."""

    def save(self, folder: Path) -> None:
        """Write the reward's folder."""


class TrainedRewardDataset(FolderDataset[Trained, str]):
    """A trained VideoReward or UnifiedReward: saved as a folder that ``vr.load_reward_model`` reads, loaded as a path.

    The folder is written beside its place and renamed. Documents in it (``*.md``) are kept.

    Example::

        trained_reward:
          type: vr_pipeline.datasets.trained_reward.TrainedRewardDataset
          path: data/06_models/videoreward
    """

    settings_file: ClassVar[str] = "reward.json"

    def load(self) -> str:
        return str(self._path)

    def save(self, data: Trained) -> None:
        with replaced_folder(self._path) as folder:
            data.save(folder)
            for document in sorted(self._path.glob("*.md")):
                shutil.copy2(document, folder / document.name)

    def _exists(self) -> bool:
        return (self._path / self.settings_file).exists()


class LatentRewardDataset(TrainedRewardDataset):
    """A trained latent reward, saved likewise; ``LatentReward.load`` of vr_pipeline.generators reads the folder.

    Example::

        latent_reward:
          type: vr_pipeline.datasets.trained_reward.LatentRewardDataset
          path: data/06_models/latent_reward
    """

    settings_file = "latent_reward.json"
