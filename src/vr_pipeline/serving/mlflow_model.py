"""The linear reward as an MLflow pyfunc model: prompts and answers (or clips) in, total and dimension rewards out.

The model folder holds a small file that MLflow runs ("model from code"), this package's code, the weights and the
checklist as plain JSON, and the reference of judge and alignment score, by which it scores clips; nothing is pickled,
and the judge's weights stay where they are.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from vr_pipeline.errors import InputError
from vr_pipeline.rewards.checklist.linear import dimension_scores, score
from vr_pipeline.rewards.checklist.tables import probability_questions
from vr_pipeline.rewards.checklist.weights import RewardWeights
from vr_pipeline.runtime.environment import environment_variables
from vr_pipeline.statistics.labels import FloatArray
from vr_pipeline.vlm.loading import judge_identity

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

    from vr_pipeline.checklist.schema import Checklist
    from vr_pipeline.rewards.checklist.model import ChecklistReward

logger = logging.getLogger(__name__)

_CODE = Path(__file__).with_name("mlflow_model_code.py")


def score_table(model: ChecklistReward, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rewards of each row.

    Args:
        model: the reward.
        table: column ``prompt``, and either one column per question with the probability of yes in 0..1 (empty where a
            gate switched the question off), or a column ``video_path``, with ``video_id`` where a table of alignment
            scores has names other than the files'. Clips are scored as by the pipeline.

    Returns:
        ``total`` and one ``dim_<name>`` per dimension; one row per row of the input.

    Raises:
        InputError: columns missing, a probability that is no number in 0..1, paths without a configured judge, or a
            clip that cannot be judged.
    """
    if "prompt" not in table.columns:
        raise InputError("the input has no column 'prompt'", remedy="Give the prompt of each clip", field="prompt")
    weights = model.weights
    missing = [name for name in weights.question_ids if name not in table.columns]
    if not missing:
        probability = table[list(weights.question_ids)].to_numpy(dtype=np.float64)
        features = _features(probability, weights, model.checklist)
        result = pd.DataFrame({"total": score(features, weights)})
        return pd.concat([result, dimension_scores(features, weights, model.checklist)], axis=1)
    if "video_path" in table.columns:
        return _score_clips(model, table)
    raise InputError(
        f"the input has no answers to question '{missing[0]}' and no column 'video_path'",
        remedy="Give one column per question with P(yes), or the paths of the clips",
        field=missing[0],
    )


def _features(probability: FloatArray, weights: RewardWeights, checklist: Checklist) -> FloatArray:
    """Return the features. Raises :class:`InputError` if a value is not a probability."""
    gated = {question.question_id for question in checklist.questions if question.gate}
    may_be_empty = np.isin(np.array(weights.question_ids), list(gated))
    right = ((probability >= 0) & (probability <= 1)) | (np.isnan(probability) & may_be_empty)
    if not right.all():
        row, column = np.argwhere(~right)[0]
        raise InputError(
            f"a probability is {probability[row, column]}",
            remedy="Give numbers from 0 to 1; only questions with a gate may be empty",
            field=weights.question_ids[column],
            row=int(row) + 1,
        )
    if weights.answers == "probability":
        return probability
    answers = np.where(np.isnan(probability), np.nan, (probability > 0.5).astype(np.float64))
    keep = np.isin(np.array(weights.question_ids), probability_questions(checklist))
    return np.where(keep, probability, answers)


def _score_clips(model: ChecklistReward, table: pd.DataFrame) -> pd.DataFrame:
    names = table["video_id"] if "video_id" in table.columns else [None] * len(table)
    rows = []
    for number, (path, prompt, name) in enumerate(zip(table["video_path"], table["prompt"], names, strict=True)):
        video_id = None if pd.isna(name) else str(name)
        try:
            rows.append(model.score_clip(Path(path), str(prompt), video_id=video_id))
        except InputError as error:
            raise error.at(file=error.file or path, row=number + 1) from error
    return pd.concat(rows, ignore_index=True)[["total", *(f"dim_{name}" for name in model.dimensions)]]


def model_signature(weights: RewardWeights, checklist: Checklist) -> ModelSignature:
    """Return input and output columns with types; answers and paths are optional, since either suffices."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    inputs = [ColSpec("string", "prompt")]
    inputs += [ColSpec("string", name, required=False) for name in ("video_path", "video_id")]
    inputs += [ColSpec("double", question, required=False) for question in weights.question_ids]
    outputs = [ColSpec("double", "total"), *(ColSpec("double", f"dim_{name}") for name in checklist.dimensions)]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def write_model_files(folder: str | Path, model: ChecklistReward) -> dict[str, str]:
    """Write a model's JSON files; return name -> path as MLflow's artifacts.

    ``reward.json`` describes the reward for :func:`~vr_pipeline.rewards.registry.load_reward_model`. Of the judge it
    holds the reference and the identity, never the weights.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    reward = {"type": "checklist", "checklist": "checklist.json", "weights": "weights.json"}
    contents = {
        "reward": {**reward, **_judge_reference(model)},
        "weights": model.weights.to_json(),
        "checklist": model.checklist.model_dump(mode="json"),
    }
    paths = {}
    for name, content in contents.items():
        path = target / f"{name}.json"
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        paths[name] = str(path)
    return paths


def _judge_reference(model: ChecklistReward) -> dict[str, Any]:
    """Return the judge's configuration, its identity and the source of the alignment score."""
    if not model.has_judge:
        return {}
    judge, alignment = model.judge, model.judging.alignment
    try:
        identity = model.expected_judge or judge_identity(judge)
    except InputError as error:
        # Answers may come from elsewhere; then nobody here can say which model gave them.
        logger.warning("The packaged reward model lacks its judge's identity: %s", error)
        identity = ""
    reference: dict[str, Any] = {"judge": judge.model_dump(mode="json"), "judge_identity": identity}
    reference["alignment"] = alignment.model_dump(mode="json") if alignment is not None else None
    for named in (reference, reference["alignment"] or {}):
        one: dict[str, Any] = named.get("judge") or {"server": "none"}
        if one["server"] is None and one["revision"] is None and not one["path"].startswith((".", "/", "~")):
            # A folder stays one where it does not exist; without the dot it could be a name on the hub.
            one["path"] = f"./{one['path']}"
    return reference


def save_reward_model(path: str | Path, model: ChecklistReward) -> None:
    """Save the model as an MLflow folder that ``mlflow.pyfunc.load_model(path)`` loads.

    It carries the code of this package and names the installed versions of what that needs, so nothing has to be found
    under this package's name in an index. Where the package is installed, that is used.

    The same model gives the same bytes: what MLflow adds of the moment and the machine (an identifier, the time, the
    places the files came from) is taken out of the folder's description.

    Args:
        path: folder that does not exist yet.
        model: the reward.
    """
    import tempfile

    import mlflow

    with (
        tempfile.TemporaryDirectory() as folder,
        environment_variables({"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}),
    ):
        files = write_model_files(folder, model)
        files["code"] = str(write_code(Path(folder) / "vr_pipeline.zip"))
        weights, checklist = model.weights, model.checklist
        mlflow.pyfunc.save_model(
            path=str(path),
            python_model=str(_CODE),
            artifacts=files,
            signature=model_signature(weights, checklist),
            input_example=example_input(weights),
            # Named, not inferred: inference starts a process that imports everything.
            pip_requirements=requirements(),
            metadata={"checklist_hash": checklist.hash, "answers": weights.answers, "encoding": weights.encoding},
        )
    _forget_moment_and_machine(Path(path) / "MLmodel")


def write_code(path: Path) -> Path:
    """Write this package's modules as an importable archive; the same code gives the same bytes."""
    import zipfile

    package = Path(__file__).parents[1]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(package.rglob("*.py")):
            name = f"{package.name}/{file.relative_to(package).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes())
    return path


def requirements() -> list[str]:
    """List this package's requirements with the installed versions."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in requires("vr_pipeline") or []]
    except PackageNotFoundError:  # a folder of sources that was never installed
        declared = [Requirement(name) for name in ("mlflow", "numpy", "pandas", "pydantic", "PyYAML")]
    needed = [one for one in declared if one.marker is None or one.marker.evaluate({"extra": ""})]
    return sorted(f"{one.name}=={version(one.name)}" for one in needed)


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
    """Return one row of input: every question answered with probability 0.5."""
    return pd.DataFrame([{"prompt": "a prompt", **dict.fromkeys(weights.question_ids, 0.5)}])
