"""Catalog dataset of the reward as an MLflow model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from vr_pipeline.serving.mlflow_model import RewardModel, read_model_files, save_reward_model
from vr_pipeline.storage.atomic import replaced_folder


class RewardModelDataset(AbstractDataset[RewardModel, RewardModel]):
    """A folder that ``mlflow.pyfunc.load_model`` understands; the same model gives the same bytes.

    Example::

        reward_model:
          type: vr_pipeline.datasets.reward_model.RewardModelDataset
          path: data/06_models/reward_model
    """

    def __init__(self, *, path: str, metadata: dict[str, Any] | None = None) -> None:
        self._path = Path(path)
        self.metadata = metadata

    def load(self) -> RewardModel:
        names = ("weights", "checklist", "judge")
        return read_model_files({name: str(self._path / "artifacts" / f"{name}.json") for name in names})

    def save(self, data: RewardModel) -> None:
        with replaced_folder(self._path) as folder:
            save_reward_model(
                folder,
                data.weights,
                data.checklist,
                judge=data.judge_configuration,
                alignment=data.alignment_configuration,
            )

    def _exists(self) -> bool:
        return (self._path / "MLmodel").exists()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}
