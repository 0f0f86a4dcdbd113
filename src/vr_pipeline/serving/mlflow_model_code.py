"""The file MLflow runs when it loads a reward model ("model from code"); the work is in the package."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext


class RewardPythonModel(PythonModel):
    """Thin adapter between MLflow and ``vr_pipeline.serving.mlflow_model.RewardModel``."""

    def load_context(self, context: PythonModelContext) -> None:
        files = dict(context.artifacts)
        code = files.pop("code")
        if importlib.util.find_spec("vr_pipeline") is None:
            # The code that came with the model.
            sys.path.append(code)
        from vr_pipeline.serving.mlflow_model import read_model_files

        self._model: Any = read_model_files(files)

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict | None = None
    ) -> pd.DataFrame:
        return self._model.score_table(model_input)


mlflow.models.set_model(RewardPythonModel())
