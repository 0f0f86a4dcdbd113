"""The linear reward as an MLflow pyfunc model: prompts and answers (or clips) in, total and dimension rewards out.

The model folder holds this package's code as a reference ("model from code"), the weights and the checklist as plain
JSON, and a judge configuration where clips are to be judged by the model itself; nothing is pickled.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.linear import FloatArray, RewardWeights, dimension_scores, score
from vr_pipeline.rewards.tables import check_checklist, probability_questions

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from vr_pipeline.checklist.schema import Checklist

_CODE = Path(__file__).with_name("mlflow_model_code.py")


class RewardModel:
    """Rewards of clips from a table of prompts and answers, or of prompts and paths of clips.

    Args:
        weights: the linear reward.
        checklist: the questions it belongs to.
        judge: configuration for :func:`vr_pipeline.judges.load_judge`; loaded when first needed.
    """

    def __init__(self, weights: RewardWeights, checklist: Checklist, judge: Mapping[str, Any] | None = None) -> None:
        check_checklist(weights, checklist)
        self.weights, self.checklist = weights, checklist
        self.judge_configuration = dict(judge) if judge else None
        self._judge: Any = None

    def score_table(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rewards of each row.

        Args:
            table: column ``prompt``, and either one column a question with the probability of yes in 0..1 (empty where
                a gate switched the question off), or a column ``video_path``.

        Returns:
            ``total`` and ``dim_<name>`` a dimension, one row a row.

        Raises:
            InputError: columns missing, a probability outside 0..1, or paths without a configured judge.
        """
        if "prompt" not in table.columns:
            raise InputError("the input has no column 'prompt'", remedy="Give the prompt of each clip", field="prompt")
        missing = [name for name in self.weights.question_ids if name not in table.columns]
        if not missing:
            probability = table[list(self.weights.question_ids)].to_numpy(dtype=np.float64)
        elif "video_path" in table.columns:
            probability = self._judged(list(table["video_path"]), list(table["prompt"]))
        else:
            raise InputError(
                f"the input has no answers to question '{missing[0]}' and no column 'video_path'",
                remedy="Give one column a question with P(yes), or the paths of the clips",
                field=missing[0],
            )
        with np.errstate(invalid="ignore"):
            outside = (probability < 0) | (probability > 1)
        if outside.any():
            row, column = np.argwhere(outside)[0]
            raise InputError(
                f"a probability is {probability[row, column]}",
                remedy="Give numbers from 0 to 1",
                field=self.weights.question_ids[column],
                row=int(row) + 1,
            )
        features = self._features(probability)
        result = pd.DataFrame({"total": score(features, self.weights)})
        return pd.concat([result, dimension_scores(features, self.weights, self.checklist)], axis=1)

    def _features(self, probability: FloatArray) -> FloatArray:
        if self.weights.answers == "probability":
            return probability
        answers = np.where(np.isnan(probability), np.nan, (probability > 0.5).astype(np.float64))
        keep = np.isin(np.array(self.weights.question_ids), probability_questions(self.checklist))
        return np.where(keep, probability, answers)

    def _judged(self, paths: list[str], prompts: list[str]) -> FloatArray:
        if self.judge_configuration is None:
            raise InputError(
                "the model has no judge, so that it cannot answer the questions about a clip itself",
                remedy="Give the answers as columns, or save the model with a judge configuration",
                field="video_path",
            )
        from vr_pipeline.judges import load_judge
        from vr_pipeline.video.read import read_frames

        if self._judge is None:
            self._judge = load_judge(self.judge_configuration)
        asked = self.checklist.questions
        place = {question.question_id: i for i, question in enumerate(asked)}
        rows = []
        for path, prompt in zip(paths, prompts, strict=True):
            texts = [question.text for question in asked]
            p_yes, _ = self._judge.answer([read_frames(path)], texts, [prompt])
            answers = np.asarray(p_yes[0], dtype=np.float64)
            off = self.checklist.switched_off({name: bool(answers[i] > 0.5) for name, i in place.items()})
            rows.append([np.nan if off[name] else answers[place[name]] for name in self.weights.question_ids])
        return np.array(rows, dtype=np.float64).reshape(len(paths), len(self.weights.question_ids))


def model_signature(weights: RewardWeights, checklist: Checklist) -> ModelSignature:
    """Input and output columns with their types; answers and paths are optional, since either will do."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = [ColSpec("string", "prompt"), ColSpec("string", "video_path", required=False)]
    inputs += [ColSpec("double", question, required=False) for question in weights.question_ids]
    outputs = [ColSpec("double", "total"), *(ColSpec("double", f"dim_{name}") for name in checklist.dimensions)]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def write_model_files(
    folder: str | Path, weights: RewardWeights, checklist: Checklist, judge: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Writes the three JSON files the model is made of; gives name -> path as MLflow's artifacts."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    contents = {
        "weights": weights.to_json(),
        "checklist": checklist.model_dump(mode="json"),
        "judge": dict(judge) if judge else None,
    }
    paths = {}
    for name, content in contents.items():
        path = target / f"{name}.json"
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        paths[name] = str(path)
    return paths


def read_model_files(paths: Mapping[str, str]) -> RewardModel:
    """The model from the files of :func:`write_model_files`."""
    from vr_pipeline.checklist.schema import Checklist

    contents = {name: json.loads(Path(path).read_text(encoding="utf-8")) for name, path in paths.items()}
    return RewardModel(
        RewardWeights.from_json(contents["weights"]),
        Checklist.model_validate(contents["checklist"]),
        contents.get("judge"),
    )


def save_reward_model(
    path: str | Path, weights: RewardWeights, checklist: Checklist, *, judge: Mapping[str, Any] | None = None
) -> None:
    """Saves the model as an MLflow folder; ``mlflow.pyfunc.load_model(path)`` loads it where this package is installed.

    The same model gives the same bytes: what MLflow adds of the moment and the machine (an identifier, the time, the
    places the files came from) is taken out of the folder's description.

    Args:
        path: folder that does not exist yet.
        weights, checklist: the reward.
        judge: configuration of the judge for clips given by path; absolute paths in it must exist where it is loaded.
    """
    import tempfile

    import mlflow

    with tempfile.TemporaryDirectory() as folder, _no_progress_bars():
        files = write_model_files(folder, weights, checklist, judge)
        mlflow.pyfunc.save_model(path=str(path), **_arguments(files, weights, checklist))
    _forget_moment_and_machine(Path(path) / "MLmodel")


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """MLflow shows a bar for each of three small files; they would stand between those of the run."""
    name = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _forget_moment_and_machine(description: Path) -> None:
    content = yaml.safe_load(description.read_text(encoding="utf-8"))
    for name in ("model_uuid", "utc_time_created", "model_id"):
        content.pop(name, None)
    flavour = content["flavors"]["python_function"]
    flavour["model_code_path"] = Path(flavour["model_code_path"]).name
    for artifact in flavour["artifacts"].values():
        artifact["uri"] = artifact["path"]
    description.write_text(yaml.safe_dump(content, sort_keys=True), encoding="utf-8")


def example_input(weights: RewardWeights) -> pd.DataFrame:
    """One row of input: every question answered with even odds."""
    return pd.DataFrame([{"prompt": "a prompt", **dict.fromkeys(weights.question_ids, 0.5)}])


def _arguments(artifacts: dict[str, str], weights: RewardWeights, checklist: Checklist) -> dict[str, Any]:
    return {
        "python_model": str(_CODE),
        "artifacts": artifacts,
        "signature": model_signature(weights, checklist),
        "input_example": example_input(weights),
        # Named, not inferred: inference starts a process that imports everything.
        "pip_requirements": ["vr_pipeline"],
        "metadata": {"checklist_hash": checklist.hash, "answers": weights.answers, "encoding": weights.encoding},
    }
