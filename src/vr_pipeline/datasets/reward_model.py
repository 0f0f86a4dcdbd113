"""Catalog dataset of the reward as an MLflow model folder."""

from vr_pipeline.datasets.places import FolderDataset
from vr_pipeline.rewards.checklist.model import ChecklistReward
from vr_pipeline.rewards.registry import load_reward_model
from vr_pipeline.serving.mlflow_model import save_reward_model
from vr_pipeline.storage.atomic import replaced_folder


class RewardModelDataset(FolderDataset[ChecklistReward, ChecklistReward]):
    """A reward as a folder that ``mlflow.pyfunc.load_model`` reads; the same model gives the same bytes.

    Example::

        reward_model:
          type: vr_pipeline.datasets.reward_model.RewardModelDataset
          path: data/06_models/reward_model
    """

    def load(self) -> ChecklistReward:
        model = load_reward_model(self._path)
        if not isinstance(model, ChecklistReward):
            raise TypeError(f"{self._path} holds a {type(model).__name__}")
        return model

    def save(self, data: ChecklistReward) -> None:
        with replaced_folder(self._path) as folder:
            save_reward_model(folder, data)

    def _exists(self) -> bool:
        return (self._path / "MLmodel").exists()
