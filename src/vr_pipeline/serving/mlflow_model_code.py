"""The file MLflow runs when it loads a reward model ("model from code"); the work is in the package."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext


class RewardPythonModel(PythonModel):
    """Thin adapter between MLflow and a reward model of ``vr_pipeline``."""

    def load_context(self, context: PythonModelContext) -> None:
        if importlib.util.find_spec("vr_pipeline") is None:
            # The code that came with the model.
            sys.path.append(context.artifacts["code"])
        from vr_pipeline.rewards.registry import load_reward_model

        self._model: Any = load_reward_model(context.artifacts["reward"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        from vr_pipeline.serving.mlflow_model import score_table

        return score_table(self._model, model_input)


mlflow.models.set_model(RewardPythonModel())
