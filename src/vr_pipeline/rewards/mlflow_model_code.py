"""The file MLflow runs when it loads a reward model ("model from code"); the work is in the package."""

from __future__ import annotations

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from vr_pipeline.rewards.mlflow_model import RewardModel, read_model_files


class RewardPythonModel(PythonModel):
    """Thin adapter between MLflow and :class:`vr_pipeline.rewards.mlflow_model.RewardModel`."""

    def load_context(self, context: PythonModelContext) -> None:
        self._model: RewardModel = read_model_files(context.artifacts)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        return self._model.score_table(model_input)


mlflow.models.set_model(RewardPythonModel())
