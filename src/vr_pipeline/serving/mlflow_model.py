"""The linear reward as an MLflow pyfunc model: prompts and answers (or clips) in, total and dimension rewards out.

The model folder holds a small file that MLflow runs ("model from code"), this package's code, the weights and the
checklist as plain JSON, and the configuration of judge and alignment score where clips are to be judged by the model
itself; nothing is pickled.
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
from vr_pipeline.rewards.checklist.linear import FloatArray, RewardWeights, dimension_scores, score
from vr_pipeline.rewards.checklist.tables import check_checklist, probability_questions

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.judges.alignment import Alignment
    from vr_pipeline.judges.contract import Judge

_CODE = Path(__file__).with_name("mlflow_model_code.py")


class RewardModel:
    """Rewards of clips from a table of prompts and answers, or of prompts and paths of clips.

    Args:
        weights: the linear reward.
        checklist: the questions it belongs to.
        judge: parameters of the judge (:class:`~vr_pipeline.vlm.config.JudgeParameters`); loaded when first needed.
        alignment: parameters of another source of the alignment score
            (:class:`~vr_pipeline.judges.config.AlignmentParameters`), if the pipeline has one.
    """

    def __init__(
        self,
        weights: RewardWeights,
        checklist: Checklist,
        judge: Mapping[str, Any] | None = None,
        alignment: Mapping[str, Any] | None = None,
    ) -> None:
        check_checklist(weights, checklist)
        self.weights, self.checklist = weights, checklist
        self.judge_configuration = dict(judge) if judge else None
        self.alignment_configuration = dict(alignment) if alignment else None
        self._loaded: tuple[Judge, Alignment | None] | None = None

    def score_table(self, table: pd.DataFrame) -> pd.DataFrame:
        """Rewards of each row.

        Args:
            table: column ``prompt``, and either one column a question with the probability of yes in 0..1 (empty where
                a gate switched the question off), or a column ``video_path``, with ``video_id`` where a table of
                alignment scores has names other than the files'. Clips are sampled and judged as by the pipeline.

        Returns:
            ``total`` and ``dim_<name>`` a dimension, one row a row.

        Raises:
            InputError: columns missing, a probability that is no number in 0..1, paths without a configured judge, or a
                clip that cannot be judged.
        """
        if "prompt" not in table.columns:
            raise InputError("the input has no column 'prompt'", remedy="Give the prompt of each clip", field="prompt")
        missing = [name for name in self.weights.question_ids if name not in table.columns]
        if not missing:
            features = self._features(table[list(self.weights.question_ids)].to_numpy(dtype=np.float64))
            result = pd.DataFrame({"total": score(features, self.weights)})
            return pd.concat([result, dimension_scores(features, self.weights, self.checklist)], axis=1)
        if "video_path" in table.columns:
            return self._judged(table)
        raise InputError(
            f"the input has no answers to question '{missing[0]}' and no column 'video_path'",
            remedy="Give one column a question with P(yes), or the paths of the clips",
            field=missing[0],
        )

    def _features(self, probability: FloatArray) -> FloatArray:
        """What is weighed. Raises :class:`InputError` where a value is no probability."""
        gated = {question.question_id for question in self.checklist.questions if question.gate}
        may_be_empty = np.isin(np.array(self.weights.question_ids), list(gated))
        right = ((probability >= 0) & (probability <= 1)) | (np.isnan(probability) & may_be_empty)
        if not right.all():
            row, column = np.argwhere(~right)[0]
            raise InputError(
                f"a probability is {probability[row, column]}",
                remedy="Give numbers from 0 to 1; only questions with a gate may be empty",
                field=self.weights.question_ids[column],
                row=int(row) + 1,
            )
        if self.weights.answers == "probability":
            return probability
        answers = np.where(np.isnan(probability), np.nan, (probability > 0.5).astype(np.float64))
        keep = np.isin(np.array(self.weights.question_ids), probability_questions(self.checklist))
        return np.where(keep, probability, answers)

    def _judged(self, table: pd.DataFrame) -> pd.DataFrame:
        from vr_pipeline.rewards.checklist.scoring import rewards_of_clip

        judge, alignment = self._load()
        names = table["video_id"] if "video_id" in table.columns else [None] * len(table)
        rows = []
        for number, (path, prompt, name) in enumerate(zip(table["video_path"], table["prompt"], names, strict=True)):
            try:
                row = rewards_of_clip(
                    judge,
                    Path(path),
                    str(prompt),
                    self.checklist,
                    self.weights,
                    alignment,
                    video_id=None if pd.isna(name) else str(name),
                )
            except InputError as error:
                raise InputError(
                    error.problem, remedy=error.remedy, file=error.file or path, row=number + 1, field=error.field
                ) from error
            rows.append(row)
        return pd.DataFrame(rows, columns=["total", *(f"dim_{name}" for name in self.checklist.dimensions)])

    def _load(self) -> tuple[Judge, Alignment | None]:
        if self.judge_configuration is None:
            raise InputError(
                "the model has no judge, so that it cannot answer the questions about a clip itself",
                remedy="Give the answers as columns, or save the model with a judge configuration",
                field="video_path",
            )
        if self._loaded is None:
            from vr_pipeline.judges import load_judge
            from vr_pipeline.judges.alignment import load_alignment
            from vr_pipeline.judges.config import AlignmentParameters

            given = self.alignment_configuration
            source = AlignmentParameters.model_validate(given) if given else None
            self._loaded = load_judge(self.judge_configuration), load_alignment(source, self.checklist)
        return self._loaded


def model_signature(weights: RewardWeights, checklist: Checklist) -> ModelSignature:
    """Input and output columns with their types; answers and paths are optional, since either will do."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = [ColSpec("string", "prompt")]
    inputs += [ColSpec("string", name, required=False) for name in ("video_path", "video_id")]
    inputs += [ColSpec("double", question, required=False) for question in weights.question_ids]
    outputs = [ColSpec("double", "total"), *(ColSpec("double", f"dim_{name}") for name in checklist.dimensions)]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def write_model_files(folder: str | Path, model: RewardModel) -> dict[str, str]:
    """Writes the three JSON files the model is made of; gives name -> path as MLflow's artifacts."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    contents = {
        "weights": model.weights.to_json(),
        "checklist": model.checklist.model_dump(mode="json"),
        "judge": {"judge": model.judge_configuration, "alignment": model.alignment_configuration},
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
        **contents["judge"],
    )


def save_reward_model(
    path: str | Path,
    weights: RewardWeights,
    checklist: Checklist,
    *,
    judge: Mapping[str, Any] | None = None,
    alignment: Mapping[str, Any] | None = None,
) -> None:
    """Save the model as an MLflow folder that ``mlflow.pyfunc.load_model(path)`` loads.

    It carries the code of this package and names the installed versions of what that needs, so nothing has to be found
    under this package's name in an index. Where the package is installed, that is used.

    The same model gives the same bytes: what MLflow adds of the moment and the machine (an identifier, the time, the
    places the files came from) is taken out of the folder's description.

    Args:
        path: folder that does not exist yet.
        weights, checklist: the reward.
        judge: parameters of the judge for clips given by path; paths in it must exist where it is loaded.
        alignment: parameters of another source of the alignment score.
    """
    import tempfile

    import mlflow

    with tempfile.TemporaryDirectory() as folder, _no_progress_bars():
        files = write_model_files(folder, RewardModel(weights, checklist, judge, alignment))
        files["code"] = str(write_code(Path(folder) / "vr_pipeline.zip"))
        mlflow.pyfunc.save_model(path=str(path), **_arguments(files, weights, checklist))
    _forget_moment_and_machine(Path(path) / "MLmodel")


def write_code(path: Path) -> Path:
    """This package's modules as an archive that Python imports from; the same code gives the same bytes."""
    import zipfile

    package = Path(__file__).parents[1]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(package.rglob("*.py")):
            name = f"{package.name}/{file.relative_to(package).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
    return path


def requirements() -> list[str]:
    """What this package needs, in the versions that are installed here."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in requires("vr_pipeline") or []]
    except PackageNotFoundError:  # a folder of sources that was never installed
        declared = [Requirement(name) for name in ("mlflow", "numpy", "pandas", "pydantic", "PyYAML")]
    needed = [one for one in declared if one.marker is None or one.marker.evaluate({"extra": ""})]
    return sorted(f"{one.name}=={version(one.name)}" for one in needed)


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
        "pip_requirements": requirements(),
        "metadata": {"checklist_hash": checklist.hash, "answers": weights.answers, "encoding": weights.encoding},
    }
