"""Catalog dataset of the reward as an MLflow model folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from vr_pipeline.rewards.mlflow_model import RewardModel, read_model_files, save_reward_model


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
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(self._path.name + ".partial")
        if temporary.exists():
            shutil.rmtree(temporary)
        save_reward_model(temporary, data.weights, data.checklist, judge=data.judge_configuration)
        if self._path.exists():
            shutil.rmtree(self._path)
        temporary.rename(self._path)

    def _exists(self) -> bool:
        return (self._path / "MLmodel").exists()

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}
